"""FLOPs as PyTorch's dispatcher sees them, with the formulas that it lacks or has wrong.

counted(lambda: core(q, k, v))      # matrix products and convolutions, a multiply-add as two
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def counted(call: Callable[[], object]) -> int:
    """FLOPs of whatever `call` dispatches, gradients included if it takes any.

    Without torch.nn.TransformerEncoderLayer's fused call, of which the dispatcher sees one operator without a formula.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
            call()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops()


def _attention(query: Any, key: Any, value: Any, *rest: Any, **keywords: Any) -> int:
    b, h, n, d = query
    return 2 * b * h * n * key[-2] * (d + value[-1])


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *rest: Any, **keywords: Any) -> int:
    return int(2.5 * _attention(query, key, value))


def _convolution_backward(gradient: Any, x: Any, weight: Any, *rest: Any, **keywords: Any) -> int:
    """As many products for each wanted gradient as forward; rest ends with which are: (input, weight, bias)."""
    return 2 * math.prod(gradient) * math.prod(weight[1:]) * sum(rest[-1][:2])


def _product_added(to: Any, left: Any, right: Any, *rest: Any, **keywords: Any) -> int:
    return 2 * math.prod(left) * right[-1]


FORMULAS = {
    # PyTorch before 2.15 knows no formula for its own CPU flash kernel and counts 0
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    # PyTorch counts the weight's gradient of a grouped convolution for every pair of groups
    torch.ops.aten.convolution_backward: _convolution_backward,
    # PyTorch counts 0 for a product that is added in place
    torch.ops.aten.baddbmm_: _product_added,
    torch.ops.aten.addmm_: _product_added,
}

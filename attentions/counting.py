"""FLOPs as PyTorch's dispatcher sees them, with the formulas that it lacks or has wrong.

counted(lambda: core(q, k, v))      # matrix products and convolutions, a multiply-add as two

Of causal attention half is counted, as kernels compute it: PyTorch's own formulas count all of it. Grouped heads, which
those refuse, count as many products as there are heads of queries.
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


def _attention(operator: Any) -> Callable[..., int]:
    """Of scaled_dot_product_attention's kernels: q, k and v, and among the rest whether it is causal."""
    place = [argument.name for argument in operator.default._schema.arguments].index("is_causal")

    def flops(query: Any, key: Any, value: Any, *rest: Any, is_causal: bool = False, **keywords: Any) -> int:
        b, h, n, d = query
        causal = is_causal or (len(rest) > place - 3 and rest[place - 3])
        return 2 * b * h * n * key[-2] * (d + value[-1]) // (2 if causal else 1)

    return flops


def _attention_backward(operator: Any) -> Callable[..., int]:
    """The same of its backward, which is given the output's gradient first."""
    place = [argument.name for argument in operator.default._schema.arguments].index("is_causal")

    def flops(gradient: Any, query: Any, key: Any, value: Any, *rest: Any, is_causal: bool = False, **_: Any) -> int:
        b, h, n, d = query
        causal = is_causal or (len(rest) > place - 4 and rest[place - 4])
        return 5 * b * h * n * key[-2] * (d + value[-1]) // (2 if causal else 1)

    return flops


def _convolution_backward(gradient: Any, x: Any, weight: Any, *rest: Any, **keywords: Any) -> int:
    """As many products for each wanted gradient as forward; rest ends with which are: (input, weight, bias)."""
    return 2 * math.prod(gradient) * math.prod(weight[1:]) * sum(rest[-1][:2])


def _product_added(to: Any, left: Any, right: Any, *rest: Any, **keywords: Any) -> int:
    return 2 * math.prod(left) * right[-1]


_aten = torch.ops.aten
_KERNELS = (  # PyTorch before 2.15 knows no formula for the CPU's and counts 0
    _aten._scaled_dot_product_flash_attention_for_cpu, _aten._scaled_dot_product_flash_attention,
    _aten._scaled_dot_product_efficient_attention, _aten._scaled_dot_product_cudnn_attention,
)  # fmt: skip
_BACKWARDS = (
    _aten._scaled_dot_product_flash_attention_for_cpu_backward, _aten._scaled_dot_product_flash_attention_backward,
    _aten._scaled_dot_product_efficient_attention_backward, _aten._scaled_dot_product_cudnn_attention_backward,
)  # fmt: skip
FORMULAS = {
    **{operator: _attention(operator) for operator in _KERNELS},
    **{operator: _attention_backward(operator) for operator in _BACKWARDS},
    # PyTorch counts the weight's gradient of a grouped convolution for every pair of groups
    torch.ops.aten.convolution_backward: _convolution_backward,
    # PyTorch counts 0 for a product that is added in place
    torch.ops.aten.baddbmm_: _product_added,
    torch.ops.aten.addmm_: _product_added,
}

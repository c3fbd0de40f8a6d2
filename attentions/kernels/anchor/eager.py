"""Anchor attention of eager calls: a plain autograd function around passes.py.

A registered operator costs more host time than everything else in a small call (dispatcher, schema, an autograd formula
in Python), and only those need it who look at operators: torch.compile and export, dispatch modes (FLOP counting,
selective checkpointing), functorch's transforms, tensor subclasses. `plain` tells; operators.py serves them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attentions.kernels.anchor import passes

_PLAIN = frozenset((Tensor, torch.nn.Parameter))
_dispatch_modes = torch._C._len_torch_dispatch_stack
_transforms = torch._C._are_functorch_transforms_active
_tracing = torch._C._get_tracing_state


def plain(*tensors: Tensor) -> bool:
    """Whether nobody looks at the operators of a call on these tensors."""
    for tensor in tensors:
        if type(tensor) not in _PLAIN:
            return False
    return not (_dispatch_modes() or _transforms()) and _tracing() is None


def attention(k: Tensor, v: Tensor, anchors: Tensor, schedule: str, precision: str) -> Tensor:
    """O of plain tensors."""
    if torch.is_grad_enabled() and (k.requires_grad or v.requires_grad or anchors.requires_grad):
        return _Attention.apply(k, v, anchors, schedule, precision)
    return passes.forward(k, v, anchors, schedule, precision, save=False)[0]


def attention_fused(kv: Tensor, anchors: Tensor, schedule: str, precision: str) -> Tensor:
    """The same from (b, n, 2, h, d), to (b, n, h, d)."""
    if torch.is_grad_enabled() and (kv.requires_grad or anchors.requires_grad):
        return _AttentionFused.apply(kv, anchors, schedule, precision)
    return passes.forward_fused(kv, anchors, schedule, precision, save=False)[0]


class _Attention(torch.autograd.Function):
    """Keeps k, v, the anchors, and W and δ; A is formed again. Differentiable once, as the operator is."""

    @staticmethod
    def forward(ctx: Any, k: Tensor, v: Tensor, anchors: Tensor, schedule: str, precision: str) -> Tensor:
        out, kept = passes.forward(k, v, anchors, schedule, precision, save=True)
        ctx.save_for_backward(k, v, anchors, kept)
        ctx.settings = schedule, precision
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        if torch.is_grad_enabled() or not plain(g, *saved):  # a second derivative: the operator says that it has none
            grads = torch.ops.attentions.anchor_backward(g, *saved, *ctx.settings)
        else:
            grads = passes.backward(g, *saved, *ctx.settings)
        return (*grads, None, None)


class _AttentionFused(torch.autograd.Function):
    """The same for k and v in one tensor."""

    @staticmethod
    def forward(ctx: Any, kv: Tensor, anchors: Tensor, schedule: str, precision: str) -> Tensor:
        out, kept = passes.forward_fused(kv, anchors, schedule, precision, save=True)
        ctx.save_for_backward(kv, anchors, kept)
        ctx.settings = schedule, precision
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        if torch.is_grad_enabled() or not plain(g, *saved):
            grads = torch.ops.attentions.anchor_fused_backward(g, *saved, *ctx.settings)
        else:
            grads = passes.backward_fused(g, *saved, *ctx.settings)
        return (*grads, None, None)

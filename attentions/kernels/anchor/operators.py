"""Anchor attention through Triton kernels, as PyTorch operators with gradients, shapes and FLOP counts.

    from attentions.kernels.anchor.operators import anchor_attention, anchor_attention_fused
    out = anchor_attention(k, v, anchors)              # (b, h, n, d), (b, h, n, d), (m, d) → (b, h, n, d)
    out = anchor_attention_fused(kv, anchors)          # (b, n, 2, h, d), (m, d) → (b, n, h, d): no copy on either side

    A = softmax_j(k_i · u_j / √d),  O = A (Δ⁻¹ (Aᵀ v)),  Δ = diag(Aᵀ 1)

Forward executes 8·b·h·n·m·d FLOPs (A is formed twice), backward 16; beyond inputs and outputs they keep
O(b·h·splits·m·d) floats, plus 2·b·h·n where m × d needs blocks of anchors. Both repeat bit for bit.

Source: Shan et al. 2025, arXiv 2505.16463; the algorithm is in attentions/kernels/anchor/__init__.py.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from attentions.kernels.anchor import cost, plan, plan_backward, plan_forward, tuning
from attentions.kernels.anchor.choices import DTYPES, SCHEDULES, unsupported

PRECISIONS = ("ieee", "tf32", "tf32x3")


def anchor_attention(
    k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"], anchors: Float[Tensor, "m d"], *,
    schedule: str | None = None, precision: str | None = None,
) -> Float[Tensor, "b h n d"]:  # fmt: skip
    """O = A (Δ⁻¹ (Aᵀ v)).

    Args:
        k, v: one dtype, float16, bfloat16 or float32; any batch, head and token strides (a last dimension that is not
            contiguous is copied). Under autocast they are cast to its dtype.
        anchors: any floating dtype; rounded to k's inside, its gradient summed in float32.
        schedule: `split`, `single`, `persistent`, or None for what tuning or the heuristic says. A schedule that the
            shape does not allow runs split.
        precision: of float32 products: `ieee`, `tf32`, `tf32x3`; None: tf32 if PyTorch was told to allow it
            (torch.set_float32_matmul_precision), else ieee.

    Returns: O in k's dtype, in memory token-major if k is.
    Raises: ValueError for a size or dtype that the kernels do not take, saying which they take.
    """
    k, v = _autocast(k), _autocast(v)
    problem = unsupported(k, v, anchors)
    if problem:
        raise ValueError(f"anchor:triton {problem}")
    return torch.ops.attentions.anchor(k, v, anchors, *_settings(schedule, precision))[0]


def anchor_attention_fused(
    kv: Float[Tensor, "b n 2 h d"], anchors: Float[Tensor, "m d"], *,
    schedule: str | None = None, precision: str | None = None,
) -> Float[Tensor, "b n h d"]:  # fmt: skip
    """The same on the output of one projection to 2·width: k = kv[:, :, 0], v = kv[:, :, 1].

    The gradient is written in kv's own layout, so that neither pass copies or transposes anything.
    """
    kv = _autocast(kv)
    if kv.dim() != 5 or kv.shape[2] != 2:
        raise ValueError(f"anchor:triton needs kv (b, n, 2, h, d), not {tuple(kv.shape)}")
    problem = unsupported(*_views(kv), anchors)
    if problem:
        raise ValueError(f"anchor:triton {problem}")
    return torch.ops.attentions.anchor_fused(kv, anchors, *_settings(schedule, precision))[0]


@torch.library.custom_op("attentions::anchor", mutates_args=())
def _anchor(
    k: Tensor, v: Tensor, anchors: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    k, v = _inner(k), _inner(v)
    out = plan.output_like(k)
    return out, _forward(k, v, anchors, out, schedule, precision)


@_anchor.register_fake
def _(k: Tensor, v: Tensor, anchors: Tensor, schedule: str, precision: str) -> tuple[Tensor, Tensor]:
    return plan.output_like(_inner(k)), _new_kept(k, anchors)


@torch.library.custom_op("attentions::anchor_backward", mutates_args=())
def _anchor_backward(
    g: Tensor, k: Tensor, v: Tensor, anchors: Tensor, kept: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    k, v = _inner(k), _inner(v)
    grad_k, grad_v = plan.output_like(k), plan.output_like(v)
    return grad_k, grad_v, _backward(_inner(g), k, v, anchors, kept, grad_k, grad_v, schedule, precision)


@_anchor_backward.register_fake
def _(
    g: Tensor, k: Tensor, v: Tensor, anchors: Tensor, kept: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return plan.output_like(_inner(k)), plan.output_like(_inner(v)), anchors.new_empty(anchors.shape)


@torch.library.custom_op("attentions::anchor_fused", mutates_args=())
def _anchor_fused(kv: Tensor, anchors: Tensor, schedule: str, precision: str) -> tuple[Tensor, Tensor]:
    kv = _inner(kv)
    b, n, _, h, d = kv.shape
    out = plan.allocate((b, n, h, d), dtype=kv.dtype, device=kv.device)
    return out, _forward(*_views(kv), anchors, out.transpose(1, 2), schedule, precision)


@_anchor_fused.register_fake
def _(kv: Tensor, anchors: Tensor, schedule: str, precision: str) -> tuple[Tensor, Tensor]:
    b, n, _, h, d = kv.shape
    return kv.new_empty((b, n, h, d)), _new_kept(_views(kv)[0], anchors)


@torch.library.custom_op("attentions::anchor_fused_backward", mutates_args=())
def _anchor_fused_backward(
    g: Tensor, kv: Tensor, anchors: Tensor, kept: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    kv = _inner(kv)
    grad = plan.allocate(tuple(kv.shape), dtype=kv.dtype, device=kv.device)
    g = _inner(g).transpose(1, 2)
    return grad, _backward(g, *_views(kv), anchors, kept, *_views(grad), schedule, precision)


@_anchor_fused_backward.register_fake
def _(
    g: Tensor, kv: Tensor, anchors: Tensor, kept: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return kv.new_empty(kv.shape), anchors.new_empty(anchors.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.schedule, ctx.precision = inputs
    ctx.save_for_backward(*tensors, output[1])


def _differentiate(ctx: Any, g: Tensor, *unused: Any) -> tuple[Any, ...]:
    grads = torch.ops.attentions.anchor_backward(g, *ctx.saved_tensors, ctx.schedule, ctx.precision)
    return (*grads, None, None)


def _differentiate_fused(ctx: Any, g: Tensor, *unused: Any) -> tuple[Any, ...]:
    grads = torch.ops.attentions.anchor_fused_backward(g, *ctx.saved_tensors, ctx.schedule, ctx.precision)
    return (*grads, None, None)


_anchor.register_autograd(_differentiate, setup_context=_keep)
_anchor_fused.register_autograd(_differentiate_fused, setup_context=_keep)


@register_flop_formula(torch.ops.attentions.anchor, get_raw=True)
def _(k: Tensor, v: Tensor, anchors: Tensor, *rest: Any, out_val: Any = None, **unused: Any) -> int:
    return _flops(k, anchors, "forward")


@register_flop_formula(torch.ops.attentions.anchor_backward, get_raw=True)
def _(g: Tensor, k: Tensor, v: Tensor, anchors: Tensor, *rest: Any, out_val: Any = None, **unused: Any) -> int:
    return _flops(k, anchors, "backward")


@register_flop_formula(torch.ops.attentions.anchor_fused, get_raw=True)
def _(kv: Tensor, anchors: Tensor, *rest: Any, out_val: Any = None, **unused: Any) -> int:
    return _flops(_views(kv)[0], anchors, "forward")


@register_flop_formula(torch.ops.attentions.anchor_fused_backward, get_raw=True)
def _(g: Tensor, kv: Tensor, anchors: Tensor, *rest: Any, out_val: Any = None, **unused: Any) -> int:
    return _flops(_views(kv)[0], anchors, "backward")


def _flops(k: Tensor, anchors: Tensor, phase: str) -> int:
    b, h, n, d = k.shape
    return cost.flops(tokens=b * h * n, d=d, m=anchors.shape[0], dtype=k.dtype, phase=phase)


def _forward(
    k: Tensor, v: Tensor, anchors: Tensor, out: Tensor, schedule: str, precision: str
) -> Tensor:  # fmt: skip
    """Fill out, (b, h, n, d) of any strides; returns `kept`."""
    anchors, kept = anchors.contiguous(), _new_kept(k, anchors)
    choice = tuning.choose(k, v, anchors, "forward", schedule or None)
    planned = plan_forward.forward(k, v, anchors, out=plan.strides_of(out), choice=choice, precision=precision)
    planned.run({"k": k, "v": v, "anchors": anchors, "out": out, "kept": kept})
    return kept


def _backward(
    g: Tensor, k: Tensor, v: Tensor, anchors: Tensor, kept: Tensor, grad_k: Tensor, grad_v: Tensor,
    schedule: str, precision: str,
) -> Tensor:  # fmt: skip
    """Fill grad_k and grad_v; returns the anchors' gradient."""
    anchors = anchors.contiguous()
    grad_anchors = plan.allocate(tuple(anchors.shape), dtype=anchors.dtype, device=k.device)
    choice = tuning.choose(k, v, anchors, "backward", schedule or None)
    planned = plan_backward.backward(
        g, k, v, anchors, grad_k=plan.strides_of(grad_k), grad_v=plan.strides_of(grad_v),
        choice=choice, precision=precision,
    )  # fmt: skip
    tensors = (g, k, v, anchors, kept, grad_k, grad_v, grad_anchors)
    planned.run(dict(zip(plan_backward.TENSORS, tensors, strict=True)))
    return grad_anchors


def _new_kept(k: Tensor, anchors: Tensor) -> Tensor:
    size = plan.kept_places(k.shape[0] * k.shape[1], *anchors.shape)[2]
    return plan.allocate((size,), dtype=torch.float32, device=k.device)


def _views(kv: Tensor) -> tuple[Tensor, Tensor]:
    """k and v, (b, h, n, d) views of (b, n, 2, h, d)."""
    return kv[:, :, 0].transpose(1, 2), kv[:, :, 1].transpose(1, 2)


def _inner(tensor: Tensor) -> Tensor:
    """The tensor itself, unless its last dimension is strided or its tokens lie too far apart for 32-bit offsets
    inside a tile (an expanded gradient, a transposed view): then a copy."""
    fits = tensor.stride(-1) == 1 and all(0 <= stride < 2**23 for stride in tensor.stride()[1:-1])
    return tensor if fits or tensor.numel() == 0 else tensor.contiguous()


def _autocast(tensor: Tensor) -> Tensor:
    kind = tensor.device.type
    if torch.is_autocast_enabled(kind) and tensor.dtype in DTYPES:
        return tensor.to(torch.get_autocast_dtype(kind))
    return tensor


def _settings(schedule: str | None, precision: str | None) -> tuple[str, str]:
    if schedule is not None and schedule not in SCHEDULES:
        raise ValueError(f"schedule is one of {', '.join(SCHEDULES)}, not {schedule!r}")
    if precision is None:
        precision = "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    if precision not in PRECISIONS:
        raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
    return schedule or "", precision

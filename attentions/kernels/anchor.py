"""Anchor attention through Triton kernels, as PyTorch operators with gradients, shapes and FLOP counts.

    from attentions.kernels.anchor import anchor_attention, anchor_attention_fused
    out = anchor_attention(k, v, anchors)              # (b, h, n, d), (b, h, n, d), (m, d) → (b, h, n, d)
    out = anchor_attention_fused(kv, anchors)          # (b, n, 2, h, d), (m, d) → (b, n, h, d): no copy on either side

    A = softmax_j(k_i · u_j / √d),  O = A (Δ⁻¹ (Aᵀ v)),  Δ = diag(Aᵀ 1)

Forward executes 8·b·h·n·m·d FLOPs (A is formed twice), backward 16; beyond inputs and outputs they keep
O(b·h·splits·m·d) floats, plus 2·b·h·n where m × d needs blocks of anchors. Both repeat bit for bit.

Source: Shan et al. 2025, arXiv 2505.16463; the algorithm is in attentions/kernels/anchor_device.py.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from attentions.kernels import anchor_plan, anchor_tune

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
        schedule: `split`, `persistent`, or None for what tuning or the heuristic says. A persistent schedule that the
            shape does not allow runs split.
        precision: of float32 products: `ieee`, `tf32`, `tf32x3`; None: tf32 if PyTorch was told to allow it
            (torch.set_float32_matmul_precision), else ieee.

    Returns: O in k's dtype, in memory token-major if k is.
    Raises: ValueError for a size or dtype that the kernels do not take, saying which they take.
    """
    k, v = _autocast(k), _autocast(v)
    problem = anchor_plan.unsupported(k, v, anchors)
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
    problem = anchor_plan.unsupported(*_views(kv), anchors)
    if problem:
        raise ValueError(f"anchor:triton {problem}")
    return torch.ops.attentions.anchor_fused(kv, anchors, *_settings(schedule, precision))[0]


@torch.library.custom_op("attentions::anchor", mutates_args=())
def _anchor(
    k: Tensor, v: Tensor, anchors: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _forward(_inner(k), _inner(v), anchors, schedule, precision)


@_anchor.register_fake
def _(k: Tensor, v: Tensor, anchors: Tensor, schedule: str, precision: str) -> tuple[Tensor, Tensor, Tensor]:
    return (anchor_plan.output_like(_inner(k)), *_statistics(k, anchors))


@torch.library.custom_op("attentions::anchor_backward", mutates_args=())
def _anchor_backward(
    g: Tensor, k: Tensor, v: Tensor, anchors: Tensor, means: Tensor, degree: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _backward(_inner(g), _inner(k), _inner(v), anchors, means, degree, schedule, precision)


@_anchor_backward.register_fake
def _(
    g: Tensor, k: Tensor, v: Tensor, anchors: Tensor, means: Tensor, degree: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return (
        anchor_plan.output_like(_inner(k)),
        anchor_plan.output_like(_inner(v)),
        anchors.new_empty(anchors.shape),
    )


@torch.library.custom_op("attentions::anchor_fused", mutates_args=())
def _anchor_fused(
    kv: Tensor, anchors: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    kv = _inner(kv)
    k, v = _views(kv)
    b, n, _, h, d = kv.shape
    out = anchor_plan.allocate((b, n, h, d), dtype=kv.dtype, device=kv.device)
    _, means, degree = _forward(k, v, anchors, schedule, precision, out=out.transpose(1, 2))
    return out, means, degree


@_anchor_fused.register_fake
def _(kv: Tensor, anchors: Tensor, schedule: str, precision: str) -> tuple[Tensor, Tensor, Tensor]:
    b, n, _, h, d = kv.shape
    return (kv.new_empty((b, n, h, d)), *_statistics(_views(kv)[0], anchors))


@torch.library.custom_op("attentions::anchor_fused_backward", mutates_args=())
def _anchor_fused_backward(
    g: Tensor, kv: Tensor, anchors: Tensor, means: Tensor, degree: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    kv = _inner(kv)
    k, v = _views(kv)
    grad = anchor_plan.allocate(tuple(kv.shape), dtype=kv.dtype, device=kv.device)
    grad_k, grad_v = _views(grad)
    g = _inner(g).transpose(1, 2)
    written = _backward(g, k, v, anchors, means, degree, schedule, precision, grad_k=grad_k, grad_v=grad_v)
    return grad, written[2]


@_anchor_fused_backward.register_fake
def _(
    g: Tensor, kv: Tensor, anchors: Tensor, means: Tensor, degree: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return kv.new_empty(kv.shape), anchors.new_empty(anchors.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.schedule, ctx.precision = inputs
    ctx.save_for_backward(*tensors, *output[1:])


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
    return anchor_plan.flops(tokens=b * h * n, d=d, m=anchors.shape[0], dtype=k.dtype, phase=phase)


def _forward(
    k: Tensor, v: Tensor, anchors: Tensor, schedule: str, precision: str, out: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    anchors = anchors.contiguous()
    choice = anchor_tune.choose(k, v, anchors, "forward", schedule or None)
    return anchor_plan.forward(k, v, anchors, out=out, choice=choice, precision=precision).run()


def _backward(
    g: Tensor, k: Tensor, v: Tensor, anchors: Tensor, means: Tensor, degree: Tensor, schedule: str, precision: str,
    grad_k: Tensor | None = None, grad_v: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    anchors = anchors.contiguous()
    choice = anchor_tune.choose(k, v, anchors, "backward", schedule or None)
    plan = anchor_plan.backward(
        g, k, v, anchors, means, degree, grad_k=grad_k, grad_v=grad_v, choice=choice, precision=precision
    )
    return plan.run()


def _statistics(k: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    parts, (m, d) = k.shape[0] * k.shape[1], anchors.shape
    return k.new_empty((parts, m, d), dtype=torch.float32), k.new_empty((parts, m), dtype=torch.float32)


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
    if torch.is_autocast_enabled(kind) and tensor.dtype in anchor_plan.DTYPES:
        return tensor.to(torch.get_autocast_dtype(kind))
    return tensor


def _settings(schedule: str | None, precision: str | None) -> tuple[str, str]:
    if schedule is not None and schedule not in anchor_plan.SCHEDULES:
        raise ValueError(f"schedule is one of {', '.join(anchor_plan.SCHEDULES)}, not {schedule!r}")
    if precision is None:
        precision = "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    if precision not in PRECISIONS:
        raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
    return schedule or "", precision

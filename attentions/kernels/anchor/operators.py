"""Anchor attention through Triton kernels, as PyTorch operators with gradients, shapes and FLOP counts.

    from attentions.kernels.anchor.operators import anchor_attention, anchor_attention_fused
    out = anchor_attention(k, v, anchors)              # (b, h, n, d), (b, h, n, d), (m, d) → (b, h, n, d)
    out = anchor_attention_fused(kv, anchors)          # (b, n, 2, h, d), (m, d) → (b, n, h, d): no copy on either side

    A = softmax_j(k_i · u_j / √d),  O = A (Δ⁻¹ (Aᵀ v)),  Δ = diag(Aᵀ 1)

A head_dim that is no multiple of 16 is padded to one, which copies k, v and their gradients; so are tensors copied that
do not lie on 16 bytes, or whose strides are no multiples of 16 elements. All others are read in place.

Forward executes 8·b·h·n·m·d FLOPs (A is formed twice), backward 16; beyond inputs and outputs they keep
O(b·h·splits·m·d) floats, plus 2·b·h·n where m × d needs blocks of anchors. Both repeat bit for bit.

Source: Shan et al. 2025, arXiv 2505.16463; the algorithm is in attentions/kernels/anchor/__init__.py.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from attentions.kernels.anchor import cost, passes, plan
from attentions.kernels.anchor.choices import DTYPES, HEAD_DIMS, UNIT, padded
from attentions.kernels.anchor.eager import attention, attention_fused, plain
from attentions.kernels.anchor.passes import check, inner, views


def anchor_attention(
    k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"], anchors: Float[Tensor, "*heads m d"], *,
    schedule: str | None = None, precision: str | None = None,
) -> Float[Tensor, "b h n d"]:  # fmt: skip
    """O = A (Δ⁻¹ (Aᵀ v)).

    Args:
        k, v: one dtype, float16, bfloat16 or float32; any batch, head and token strides. Under autocast they are cast
            to its dtype.
        anchors: of all heads or of each; any floating dtype; rounded to k's inside, its gradient summed in float32.
        schedule: `split`, `single`, or None for what tuning or the heuristic says. A schedule that the
            shape does not allow runs split.
        precision: of float32 products: `ieee`, `tf32`, `tf32x3`; None: tf32 if PyTorch was told to allow it
            (torch.set_float32_matmul_precision), else ieee.

    Returns: O in k's dtype, in memory token-major if k is.
    Raises: ValueError for a size or dtype that the kernels do not take, saying which they take.
    """
    if torch._C._is_any_autocast_enabled():
        k, v = autocast(k), autocast(v)
    if k.shape[-1] % UNIT and k.shape == v.shape and _narrow(k, anchors):
        wide = anchor_attention(_wide(k), _wide(v), _wide_anchors(anchors), schedule=schedule, precision=precision)
        return wide[..., : k.shape[-1]]
    schedule, precision = schedule or "", precision or default_precision(k)
    if not torch.compiler.is_compiling() and plain(k, v, anchors):
        return attention(k, v, anchors, schedule, precision)
    check(k, v, anchors, schedule, precision)
    return torch.ops.attentions.anchor(k, v, anchors, schedule, precision)[0]


def anchor_attention_fused(
    kv: Float[Tensor, "b n 2 h d"], anchors: Float[Tensor, "*heads m d"], *,
    schedule: str | None = None, precision: str | None = None,
) -> Float[Tensor, "b n h d"]:  # fmt: skip
    """The same on the output of one projection to 2·width: k = kv[:, :, 0], v = kv[:, :, 1].

    The gradient is written in kv's own layout, so that neither pass copies or transposes anything.
    """
    if torch._C._is_any_autocast_enabled():
        kv = autocast(kv)
    if kv.dim() != 5 or kv.shape[2] != 2:
        raise ValueError(f"anchor:triton needs kv (b, n, 2, h, d), not {tuple(kv.shape)}")
    if kv.shape[-1] % UNIT and _narrow(kv, anchors):
        wide = anchor_attention_fused(_wide(kv), _wide_anchors(anchors), schedule=schedule, precision=precision)
        return wide[..., : kv.shape[-1]]
    schedule, precision = schedule or "", precision or default_precision(kv)
    if not torch.compiler.is_compiling() and plain(kv, anchors):
        return attention_fused(kv, anchors, schedule, precision)
    check(*views(kv), anchors, schedule, precision)
    return torch.ops.attentions.anchor_fused(kv, anchors, schedule, precision)[0]


@torch.library.custom_op("attentions::anchor", mutates_args=())
def _anchor(k: Tensor, v: Tensor, anchors: Tensor, schedule: str, precision: str) -> tuple[Tensor, Tensor]:
    return passes.forward(k, v, anchors, schedule, precision, save=True)  # type: ignore[return-value]


@_anchor.register_fake
def _(k: Tensor, v: Tensor, anchors: Tensor, schedule: str, precision: str) -> tuple[Tensor, Tensor]:
    return plan.output_like(inner(k)), passes.new_kept(k, anchors)


@torch.library.custom_op("attentions::anchor_backward", mutates_args=())
def _anchor_backward(
    g: Tensor, k: Tensor, v: Tensor, anchors: Tensor, kept: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return passes.backward(g, k, v, anchors, kept, schedule, precision)


@_anchor_backward.register_fake
def _(
    g: Tensor, k: Tensor, v: Tensor, anchors: Tensor, kept: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return plan.output_like(inner(k)), plan.output_like(inner(v)), anchors.new_empty(anchors.shape)


@torch.library.custom_op("attentions::anchor_fused", mutates_args=())
def _anchor_fused(kv: Tensor, anchors: Tensor, schedule: str, precision: str) -> tuple[Tensor, Tensor]:
    return passes.forward_fused(kv, anchors, schedule, precision, save=True)  # type: ignore[return-value]


@_anchor_fused.register_fake
def _(kv: Tensor, anchors: Tensor, schedule: str, precision: str) -> tuple[Tensor, Tensor]:
    b, n, _, h, d = kv.shape
    return kv.new_empty((b, n, h, d)), passes.new_kept(views(kv)[0], anchors)


@torch.library.custom_op("attentions::anchor_fused_backward", mutates_args=())
def _anchor_fused_backward(
    g: Tensor, kv: Tensor, anchors: Tensor, kept: Tensor, schedule: str, precision: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return passes.backward_fused(g, kv, anchors, kept, schedule, precision)


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
    return _flops(views(kv)[0], anchors, "forward")


@register_flop_formula(torch.ops.attentions.anchor_fused_backward, get_raw=True)
def _(g: Tensor, kv: Tensor, anchors: Tensor, *rest: Any, out_val: Any = None, **unused: Any) -> int:
    return _flops(views(kv)[0], anchors, "backward")


def _flops(k: Tensor, anchors: Tensor, phase: str) -> int:
    b, h, n, d = k.shape
    return cost.flops(tokens=b * h * n, d=d, m=anchors.shape[-2], dtype=k.dtype, phase=phase)


def autocast(tensor: Tensor) -> Tensor:
    if not torch._C._is_any_autocast_enabled():
        return tensor
    kind = tensor.device.type
    if torch.is_autocast_enabled(kind) and tensor.dtype in DTYPES:
        return tensor.to(torch.get_autocast_dtype(kind))
    return tensor


def _narrow(tensor: Tensor, anchors: Tensor) -> bool:
    """Whether heads of no multiple of 16 are padded; what no kernel takes is not: its error tells of it as it is."""
    return tensor.shape[-1] < HEAD_DIMS[-1] and tensor.shape[-1] == anchors.shape[-1]


def _wide(tensor: Tensor) -> Tensor:
    """Heads of zeros to the next multiple of 16."""
    d = tensor.shape[-1]
    return F.pad(tensor, (0, padded(d) - d))


def _wide_anchors(anchors: Tensor) -> Tensor:
    """The same of anchors, longer by what 1/√d then is smaller: the logits stay."""
    d = anchors.shape[-1]
    return _wide(anchors.to(torch.promote_types(anchors.dtype, torch.float32)) * math.sqrt(padded(d) / d))


def default_precision(k: Tensor) -> str:
    """Of products in float32; in 16 bits there is but one."""
    return "ieee" if k.dtype != torch.float32 else _float32_precision()


def _float32_precision() -> str:
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


# torch.compile cannot trace that question: it asks once and takes the answer for a constant, guarding the setting.
# What torch.compiler.assume_constant_result sets, which would import the compiler here.
_float32_precision._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]

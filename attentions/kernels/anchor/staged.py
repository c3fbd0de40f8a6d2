"""Gather and scatter as two operators with gradients, shapes and FLOP counts; what lies between them is PyTorch's.

    sums, degree = gather(k, v, anchors, bias, times)              # Aᵀ G v (b, h, m, d), Aᵀ G 1 (b, h, m), float32
    out, share = scatter(k, means, anchors, bias, inverse)         # A W (b, h, n, d), Σ_a A_ia² r_a (b, h, n)

    A = softmax_j(k_i · u_j / √d + c_j),  G = diag(times)

anchors are (m, d), or (h, m, d) with each head's own; biases (m) or (h, m), or None. Forward executes 8·b·h·n·m·d FLOPs
and backward 22, where the fused passes of operators.py take 16 backward; nothing of size n × m is stored. `attend` is
anchor attention with other anchors on the way back, biases, importance and the own share excluded.

Untuned, launched by Triton's own launcher, in one program a tile that holds all anchors: see plan_staged.limits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from attentions.kernels.anchor import choices, passes, plan
from attentions.kernels.anchor.operators import autocast, default_precision
from attentions.kernels.anchor.options import LEAST_OTHERS, counted, inverse_of
from attentions.kernels.anchor.plan import strides_like
from attentions.kernels.anchor.plan_staged import limits, plan_gather, plan_gradients, plan_scatter

SMALLEST_DEGREE = 1e-30  # as in algebra


def attend(
    k: Float[Tensor, "b h n d"],
    v: Float[Tensor, "b h n d"],
    anchors: Float[Tensor, "*heads m d"],
    back: Float[Tensor, "*heads m d"] | None = None,
    bias: Float[Tensor, "*heads m"] | None = None,
    back_bias: Float[Tensor, "*heads m"] | None = None,
    importance: Float[Tensor, "b h n"] | None = None,
    *,
    excluded: bool = False,
) -> Float[Tensor, "b h n d"]:
    """O = B (Δ⁻¹ (Aᵀ v)), as attentions.variants.anchor.reference defines it; excluded: with B = A.

    Raises: ValueError for a size or dtype that the kernels do not take.
    """
    if excluded and back is not None:
        raise ValueError(
            "anchor:triton takes self=excluded with the gather's anchors alone; anchor:reference with others"
        )
    times = None if importance is None else counted(importance).squeeze(-1)
    sums, degree = gather(k, v, anchors, bias, times)
    alive = degree > SMALLEST_DEGREE
    divisor = degree.where(alive, 1)
    means = torch.where(alive.unsqueeze(-1), sums / divisor.unsqueeze(-1), 0)  # not by its inverse: see the reference
    if excluded:
        out, share = scatter(k, means, anchors, bias, torch.where(alive, inverse_of(divisor), 0))
        share = share if times is None else share * times
        own, others = share.unsqueeze(-1), (1 - share).clamp_min(LEAST_OTHERS).unsqueeze(-1)
        return (torch.addcmul(out, own, v.to(out.dtype), value=-1) / others).to(autocast(v).dtype)
    given = (anchors, bias) if back is None else (back, back_bias)
    return scatter(k, means, *given)[0]


def gather(
    k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"], anchors: Float[Tensor, "*heads m d"],
    bias: Float[Tensor, "*heads m"] | None, times: Float[Tensor, "b h n"] | None = None,
) -> tuple[Float[Tensor, "b h m d"], Float[Tensor, "b h m"]]:  # fmt: skip
    """Aᵀ G v and Aᵀ G 1. Under autocast k and v are cast to its dtype, here and in `scatter`."""
    k, v = autocast(k), autocast(v)
    g = k.new_empty(0, dtype=torch.float32) if times is None else times.to(torch.float32).contiguous()
    return torch.ops.attentions.anchor_gather(k, v, anchors, _offsets(k, bias), g, default_precision(k))


def scatter(
    k: Float[Tensor, "b h n d"], means: Float[Tensor, "b h m d"], anchors: Float[Tensor, "*heads m d"],
    bias: Float[Tensor, "*heads m"] | None, inverse: Float[Tensor, "b h m"] | None = None,
) -> tuple[Float[Tensor, "b h n d"], Tensor]:  # fmt: skip
    """A W in k's dtype, and nothing; with `inverse` in float32, and each token's own share (b, h, n)."""
    k, means = autocast(k), means.to(torch.float32)  # which autocast may have cut
    r = means.new_empty(0) if inverse is None else inverse
    return torch.ops.attentions.anchor_scatter(k, means, r, anchors, _offsets(k, bias), default_precision(k))


def _offsets(k: Tensor, bias: Tensor | None) -> Tensor:
    """Biases as the kernels add them, to logits before 1/√d; empty for none."""
    if bias is None:
        return torch.empty(0, dtype=torch.float32, device=k.device)
    return bias.to(torch.float32).contiguous() * math.sqrt(k.shape[-1])


@torch.library.custom_op("attentions::anchor_gather", mutates_args=())
def _gather(
    k: Tensor, v: Tensor, anchors: Tensor, offsets: Tensor, times: Tensor, precision: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    _check(k, v, anchors)
    k, v, anchors = passes.readable(k), passes.readable(v), passes.readable(anchors.contiguous())
    return _gathered(k, v, anchors, offsets, precision, times=times, degree=True, phase="forward")


@_gather.register_fake
def _(
    k: Tensor, v: Tensor, anchors: Tensor, offsets: Tensor, times: Tensor, precision: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    b, h, _, d = k.shape
    m = anchors.shape[-2]
    return k.new_empty((b, h, m, d), dtype=torch.float32), k.new_empty((b, h, m), dtype=torch.float32)


@torch.library.custom_op("attentions::anchor_gather_backward", mutates_args=())
def _gather_backward(
    grad_sums: Tensor, grad_degree: Tensor, k: Tensor, v: Tensor, anchors: Tensor, offsets: Tensor, times: Tensor,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    grads = _gradients(
        k, v, anchors, offsets, precision, times=times, y=grad_sums.contiguous(), e=grad_degree.contiguous(),
        inverse=None, grad_share=None,
    )  # fmt: skip
    return grads["k"], grads["x"], grads["anchors"], grads["offsets"], grads["times"]


@_gather_backward.register_fake
def _(
    grad_sums: Tensor, grad_degree: Tensor, k: Tensor, v: Tensor, anchors: Tensor, offsets: Tensor, times: Tensor,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    new = (plan.output_like(passes.inner(k)), plan.output_like(passes.inner(v)), anchors.new_empty(anchors.shape))
    return (*new, offsets.new_empty(offsets.shape), times.new_empty(times.shape))


@torch.library.custom_op("attentions::anchor_scatter", mutates_args=())
def _scatter(
    k: Tensor, means: Tensor, inverse: Tensor, anchors: Tensor, offsets: Tensor, precision: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    k, anchors = passes.readable(k), passes.readable(anchors.contiguous())
    means, inverse = means.contiguous(), inverse.contiguous()
    sharing = inverse.dim() == 3
    out = _output(k, torch.float32 if sharing else k.dtype)
    share = _floats(k, *k.shape[:3]) if sharing else inverse.new_empty(0)
    planned = plan_scatter(k, anchors, out=out.dtype, biased=offsets.numel() > 0, share=sharing, precision=precision)
    given = {"k": k, "anchors": anchors, "offsets": offsets, "means": means, "inverse": inverse}
    planned.run(_whole({**given, "out": out, "share": share}, instead=means))
    return out, share


@_scatter.register_fake
def _(
    k: Tensor, means: Tensor, inverse: Tensor, anchors: Tensor, offsets: Tensor, precision: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    sharing = inverse.dim() == 3
    out = plan.output_like(passes.inner(k))
    return out.float() if sharing else out, inverse.new_empty(k.shape[:3] if sharing else (0,))


@torch.library.custom_op("attentions::anchor_scatter_backward", mutates_args=())
def _scatter_backward(
    g: Tensor, grad_share: Tensor, k: Tensor, means: Tensor, inverse: Tensor, anchors: Tensor, offsets: Tensor,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    sharing, g, none = inverse.dim() == 3, passes.readable(g.to(k.dtype)), offsets.new_empty(0)
    grads = _gradients(
        k, g, anchors, offsets, precision, times=none, y=means.contiguous(), e=None,
        inverse=inverse.contiguous() if sharing else None, grad_share=grad_share.contiguous() if sharing else None,
    )  # fmt: skip
    k, anchors = passes.readable(k), passes.readable(anchors.contiguous())
    grad_means, _ = _gathered(k, g, anchors, offsets, precision, times=none, degree=False, phase="backward")
    return grads["k"], grad_means, grads["inverse"], grads["anchors"], grads["offsets"]


@_scatter_backward.register_fake
def _(
    g: Tensor, grad_share: Tensor, k: Tensor, means: Tensor, inverse: Tensor, anchors: Tensor, offsets: Tensor,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    of = (means.new_empty(means.shape), inverse.new_empty(inverse.shape), anchors.new_empty(anchors.shape))
    return (plan.output_like(passes.inner(k)), *of, offsets.new_empty(offsets.shape))


def _gathered(
    k: Tensor, x: Tensor, anchors: Tensor, offsets: Tensor, precision: str, *, times: Tensor, degree: bool, phase: str
) -> tuple[Tensor, Tensor]:  # fmt: skip
    (b, h, _, d), m = k.shape, anchors.shape[-2]
    planned, splits = plan_gather(
        k, x, anchors, biased=offsets.numel() > 0, counted=times.dim() == 3, degree=degree, phase=phase,
        precision=precision,
    )  # fmt: skip
    partial = _floats(k, b, h, splits, m, d)
    counts = _floats(k, b, h, splits, m) if degree else partial
    given = {
        "k": k, "x": x, "anchors": anchors, "offsets": offsets, "times": times, "partial": partial,
        "partial_degree": counts,
    }  # fmt: skip
    planned.run(_whole(given, instead=partial))
    return partial.sum(2), counts.sum(2) if degree else counts


def _gradients(
    k: Tensor, x: Tensor, anchors: Tensor, offsets: Tensor, precision: str, *,
    times: Tensor, y: Tensor, e: Tensor | None, inverse: Tensor | None, grad_share: Tensor | None,
) -> dict[str, Tensor]:  # fmt: skip
    """Of k, anchors, offsets, times; of x where there is `e`, of inverse where there is one."""
    k, x, matrix = passes.readable(k), passes.readable(x), passes.readable(anchors.contiguous())
    biased, sharing, counting = offsets.numel() > 0, inverse is not None, times.dim() == 3
    planned, chunks = plan_gradients(
        k, x, matrix, biased=biased, counted=counting, gathered=e is not None, share=sharing, precision=precision
    )  # fmt: skip
    (b, h, _, d), m = k.shape, anchors.shape[-2]
    grad_k, partial = _output(k, k.dtype), _floats(k, b, h, chunks, m, d)
    grad_x = _output(x, k.dtype) if e is not None else grad_k
    grad_times = _floats(k, *k.shape[:3]) if counting else times.new_empty(0)
    vectors = {"grad_offsets": biased, "grad_inverse": sharing}
    vector = {name: _floats(k, b, h, chunks, m) if there else partial for name, there in vectors.items()}
    given = {
        "k": k, "x": x, "anchors": matrix, "offsets": offsets, "times": times, "y": y, "e": y if e is None else e,
        "inverse": y if inverse is None else inverse, "grad_share": y if grad_share is None else grad_share,
        "grad_k": grad_k, "grad_x": grad_x, "grad_times": grad_times, "grad_partial": partial, **vector,
    }  # fmt: skip
    planned.run(_whole(given, instead=y))
    over = (0, 2) if anchors.dim() == 3 else (0, 1, 2)  # images and chunks; heads too where they share
    return {
        "k": grad_k, "x": grad_x, "times": grad_times, "anchors": partial.sum(over).to(anchors.dtype),
        "offsets": vector["grad_offsets"].sum(over) if biased else offsets.new_empty(0),
        "inverse": vector["grad_inverse"].sum(2) if sharing else y.new_empty(0),
    }  # fmt: skip


def _whole(given: Mapping[str, Tensor], *, instead: Tensor) -> dict[str, Tensor]:
    """Memory for what a kernel is given and does not read."""
    return {name: tensor if tensor.numel() else instead for name, tensor in given.items()}


def _output(k: Tensor, dtype: torch.dtype) -> Tensor:
    """An empty tensor of k's shape, laid out as plan.output_like has it."""
    return plan.allocate(tuple(k.shape), (*strides_like(k), 1), dtype=dtype, device=k.device)


def _floats(k: Tensor, *shape: int) -> Tensor:
    strides = [math.prod(shape[place + 1 :]) for place in range(len(shape))]
    return plan.allocate(shape, tuple(strides), dtype=torch.float32, device=k.device)


def _check(k: Tensor, v: Tensor, anchors: Tensor) -> None:
    problem = choices.unsupported(k, v, anchors)
    problem = problem or limits(n=k.shape[2], d=k.shape[3], m=anchors.shape[-2], dtype=k.dtype)
    if problem:
        raise ValueError(f"anchor:triton {problem}")


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.precision = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_gather(ctx: Any, grad_sums: Tensor, grad_degree: Tensor) -> tuple[Any, ...]:
    return (
        *torch.ops.attentions.anchor_gather_backward(grad_sums, grad_degree, *ctx.saved_tensors, ctx.precision),
        None,
    )


def _differentiate_scatter(ctx: Any, g: Tensor, grad_share: Tensor) -> tuple[Any, ...]:
    return (*torch.ops.attentions.anchor_scatter_backward(g, grad_share, *ctx.saved_tensors, ctx.precision), None)


_gather.register_autograd(_differentiate_gather, setup_context=_keep)
_scatter.register_autograd(_differentiate_scatter, setup_context=_keep)


@register_flop_formula(torch.ops.attentions.anchor_gather, get_raw=True)
def _(k: Tensor, v: Tensor, anchors: Tensor, *rest: Any, out_val: Any = None, **unused: Any) -> int:
    return 2 * flops_unit(k, anchors)


@register_flop_formula(torch.ops.attentions.anchor_gather_backward, get_raw=True)
def _(g: Tensor, d: Tensor, k: Tensor, v: Tensor, anchors: Tensor, *rest: Any, out_val: Any = None, **_: Any) -> int:
    return 5 * flops_unit(k, anchors)


@register_flop_formula(torch.ops.attentions.anchor_scatter, get_raw=True)
def _(k: Tensor, means: Tensor, r: Tensor, anchors: Tensor, *rest: Any, out_val: Any = None, **unused: Any) -> int:
    return 2 * flops_unit(k, anchors)


@register_flop_formula(torch.ops.attentions.anchor_scatter_backward, get_raw=True)
def _(
    g: Tensor, s: Tensor, k: Tensor, means: Tensor, r: Tensor, anchors: Tensor, *rest: Any, out_val: Any = None,
    **unused: Any,
) -> int:  # fmt: skip
    return 6 * flops_unit(k, anchors)


def flops_unit(k: Tensor, anchors: Tensor) -> int:
    """Of one product: 2·b·h·n·m·d."""
    return 2 * k.numel() * anchors.shape[-2]

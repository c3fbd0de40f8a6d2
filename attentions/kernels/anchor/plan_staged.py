"""Which launches the operators of staged.py make: gather, scatter and the gradients of either, each a plan."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attentions.kernels.anchor import choices, stages
from attentions.kernels.anchor.choices import UNIT, class_of, default_choice, span_of
from attentions.kernels.anchor.devices import Device, device_of
from attentions.kernels.anchor.plan import Builder, Memory, Plan, for_kernel, strides_like, strides_of


def limits(*, n: int, d: int, m: int, dtype: torch.dtype) -> str | None:
    """Why the two operators do not take a size, or None."""
    reason = choices.limits(n=n, d=d, m=m, dtype=dtype)
    if reason:
        return reason
    size = f"m={m} d={d} in {str(dtype).removeprefix('torch.')}"
    if d % UNIT:
        return f"takes these options with a head_dim that is a multiple of {UNIT}, not {d}; anchor:reference takes any"
    if not all(class_of(d=d, m=m, dtype=dtype, phase=phase).whole for phase in ("forward", "backward")):
        return f"takes these options with m × d that one tile holds, not {size}; anchor:reference takes any"
    return None


def plan_gather(
    k: Tensor, x: Tensor, anchors: Tensor, *, biased: bool, degree: bool, phase: str, counted: bool = False,
    precision: str = "ieee", device: Device | None = None,
) -> tuple[Plan, int]:  # fmt: skip
    """The launch for partial Aᵀ G x, and Aᵀ G 1 if `degree`; returns also how many splits of a head there are."""
    make, choice = _begin(k, anchors, phase, precision, device)
    tile = choice.tiles["gather"]
    span, splits = span_of(make.n, choice.splits, tile.tokens)
    arguments = _of_all(make, k, anchors) | {
        "x": Memory("x", x.dtype), "partial": Memory("partial", torch.float32), "splits": splits, "span": span,
        "times": Memory("times", torch.float32),
        "partial_degree": Memory("partial_degree", torch.float32), "x_strides": for_kernel(strides_of(x)),
    }  # fmt: skip
    make.launch(
        stages.stage_gather_kernel, tile, make.parts * splits, arguments, BIASED=biased, COUNTED=counted, DEGREE=degree
    )
    return make.plan(("k", "x", "anchors", "offsets", "times", "partial", "partial_degree"), choice), splits


def plan_scatter(
    k: Tensor, anchors: Tensor, *, out: torch.dtype, biased: bool, share: bool, precision: str = "ieee",
    device: Device | None = None,
) -> Plan:  # fmt: skip
    """The launch for A W, and s if `share`."""
    make, choice = _begin(k, anchors, "forward", precision, device)
    tile = choice.tiles["scatter"]
    span, chunks = span_of(make.n, choice.chunks, tile.tokens)
    arguments = _of_all(make, k, anchors) | {
        "means": Memory("means", torch.float32), "inverse": Memory("inverse", torch.float32),
        "out": Memory("out", out), "share": Memory("share", torch.float32), "chunks": chunks, "span": span,
        "out_strides": for_kernel(strides_like(k)),
    }  # fmt: skip
    make.launch(stages.stage_scatter_kernel, tile, make.parts * chunks, arguments, BIASED=biased, SHARE=share)
    return make.plan(("k", "anchors", "offsets", "means", "inverse", "out", "share"), choice)


def plan_gradients(
    k: Tensor, x: Tensor, anchors: Tensor, *, biased: bool, gathered: bool, share: bool, counted: bool = False,
    precision: str = "ieee", device: Device | None = None,
) -> tuple[Plan, int]:  # fmt: skip
    """The launch for dK, dU and dc, of a gather with dX and dg; returns also how many chunks of a head there are."""
    make, choice = _begin(k, anchors, "backward", precision, device)
    tile = choice.tiles["differentiate"]
    wide, narrow = max(make.kind.d_pad, make.kind.m_pad), min(make.kind.d_pad, make.kind.m_pad)
    if wide > 64 or narrow == 64:  # the sums for biases and shares beside dU would spill
        few = make.kind.d_pad == 32 or wide == 64
        tile = tile._replace(tokens=min(tile.tokens, 16 if few else 32))
    span, chunks = span_of(make.n, choice.chunks, tile.tokens)
    floats = ("times", "y", "e", "inverse", "grad_share", "grad_partial", "grad_offsets", "grad_times", "grad_inverse")
    arguments = _of_all(make, k, anchors) | {name: Memory(name, torch.float32) for name in floats} | {
        "x": Memory("x", x.dtype), "grad_k": Memory("grad_k", k.dtype), "grad_x": Memory("grad_x", k.dtype),
        "root": make.root, "chunks": chunks, "span": span, "x_strides": for_kernel(strides_of(x)),
        "grad_k_strides": for_kernel(strides_like(k)), "grad_x_strides": for_kernel(strides_like(x)),
    }  # fmt: skip
    make.launch(
        stages.stage_gradient_kernel, tile, make.parts * chunks, arguments,
        BIASED=biased, COUNTED=counted, GATHERED=gathered, SHARE=share,
    )  # fmt: skip
    return make.plan(("k", "x", "anchors", "offsets", *floats, "grad_k", "grad_x"), choice), chunks


def _begin(
    k: Tensor, anchors: Tensor, phase: str, precision: str, device: Device | None
) -> tuple[Builder, choices.Choice]:  # fmt: skip
    device = device or device_of(k.device)
    make = Builder(k, anchors, phase, device=device, precision=precision)
    choice = default_choice(make.kind, n=make.n, m=make.m, parts=make.parts, device=device, schedule="split")
    return make, choice


def _of_all(make: Builder, k: Tensor, anchors: Tensor) -> dict[str, Any]:
    """What every stage is given."""
    return {
        "k": Memory("k", k.dtype), "anchors": Memory("anchors", anchors.dtype),
        "offsets": Memory("offsets", torch.float32), "scale": make.scale, "n": make.n, "m": make.m, "heads": make.h,
        "k_strides": for_kernel(strides_of(k)),
    }  # fmt: skip

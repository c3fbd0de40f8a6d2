"""The forward pass: which launches, with which tiles and workspace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from attentions.kernels.anchor import blocked, single, sums, whole
from attentions.kernels.anchor.choices import Choice, default_choice, span_of
from attentions.kernels.anchor.devices import Device, device_of
from attentions.kernels.anchor.plan import (
    FEW_SPLITS,
    Builder,
    Memory,
    Plan,
    Strides,
    for_kernel,
    kept_places,
    strides_like,
    strides_of,
)
from attentions.kernels.anchor.tiles import Tile

TENSORS: tuple[str, ...] = ("k", "v", "anchors", "out", "kept")


def forward(
    k: Tensor, v: Tensor, anchors: Tensor, *,
    out: Strides | None = None, device: Device | None = None, choice: Choice | None = None, precision: str = "ieee",
) -> Plan:  # fmt: skip
    """Plan O for tensors of these shapes, strides and dtypes; runs on TENSORS: k, v, anchors, and what it fills,
    out (b, h, n, d) in k's dtype and kept (see plan.kept_places).

    out: strides of the output; by default it is laid out as k is. precision: of float32 products, `ieee`, `tf32` or
    `tf32x3`.
    """
    device = device or device_of(k.device)
    make = Builder(k, anchors, "forward", device=device, precision=precision)
    choice = choice or default_choice(make.kind, n=make.n, m=make.m, parts=make.parts, device=device)
    means, degree, _ = kept_places(make.parts, make.m, make.d)
    given = {
        "k": Memory("k", k.dtype), "anchors": Memory("anchors", anchors.dtype), "means": means, "degree": degree,
        "out": Memory("out", k.dtype), "scale": make.scale, "n": make.n, "m": make.m, "heads": make.h,
        "k_strides": for_kernel(strides_of(k)), "out_strides": for_kernel(out or strides_like(k)),
    }  # fmt: skip
    value, v_strides = Memory("v", v.dtype), for_kernel(strides_of(v))
    if choice.schedule == "single":
        tile = choice.tiles["single_forward"]
        make.launch(
            single.single_forward_kernel, tile, make.parts, given | {"v": value, "v_strides": v_strides},
            WGMMA=make.wgmma,
        )  # fmt: skip
        return make.plan(TENSORS, choice)

    lse = add_denominators(make, choice, given)
    splits, partial, partial_degree = add_gather(
        make, choice, {**given, "v": value, "v_strides": v_strides, "lse": lse}, degree=True
    )
    sums_of = {"partial": partial, "partial_degree": partial_degree, "means": means, "degree": degree}
    reduced = splits > FEW_SPLITS or not make.kind.whole
    if reduced:
        rows, wide = make.reduction()
        make.small(
            sums.means_kernel, make.parts * -(-make.m // rows), sums_of | {"splits": splits, "m": make.m},
            ROWS=rows, WIDE=wide, D=make.d, D_PAD=make.kind.d_pad,
        )  # fmt: skip
    if make.kind.whole:
        tile = choice.tiles["scatter"]
        span, chunks = span_of(make.n, choice.chunks, tile.tokens)
        cut = {"parts": make.parts, "splits": splits, "chunks": chunks, "span": span}
        make.launch(whole.scatter_kernel, tile, make.parts * chunks, {**given, **sums_of, **cut}, REDUCED=reduced)
    else:
        tile = choice.tiles["scatter_blocked"]
        programs = make.parts * -(-make.n // tile.tokens)
        arguments = {name: given[name] for name in given if name != "degree"} | {"lse": lse}
        make.launch(blocked.scatter_blocked_kernel, tile, programs, arguments)
    return make.plan(TENSORS, choice)


def add_denominators(make: Builder, choice: Choice, given: Mapping[str, Any]) -> Memory:
    """Where the anchors are blocked, the launch for each token's log-sum-exp; returns where that is. Else something
    that no kernel reads."""
    if make.kind.whole:
        return given["k"]
    lse, tile = make.floats(make.parts, make.n), choice.tiles["denominator"]
    names = ("k", "anchors", "scale", "n", "m", "heads", "k_strides")
    programs = make.parts * -(-make.n // tile.tokens)
    make.launch(blocked.denominator_kernel, tile, programs, {name: given[name] for name in names} | {"lse": lse})
    return lse


def add_gather(
    make: Builder, choice: Choice, given: Mapping[str, Any], *, degree: bool
) -> tuple[int, Memory, Memory]:  # fmt: skip
    """Aᵀv, of any `v`, and Aᵀ1 if `degree`, in splits; returns how many, and where the partial sums are."""
    is_blocked = not make.kind.whole
    tile: Tile = choice.tiles["gather_blocked" if is_blocked else "gather"]
    span, splits = span_of(make.n, choice.splits, tile.tokens)
    partial = make.floats(make.parts * splits, make.m, make.d)
    partial_degree = make.floats(make.parts * splits, make.m) if degree else partial
    names = ("k", "v", "anchors", "lse", "scale", "n", "m", "heads", "k_strides", "v_strides")
    arguments = {name: given[name] for name in names} | {
        "partial": partial, "partial_degree": partial_degree, "splits": splits, "span": span,
    }  # fmt: skip
    blocks = -(-make.m // tile.anchors) if is_blocked else 1
    make.launch(
        whole.gather_kernel, tile, make.parts * splits * blocks, arguments,
        BLOCKED=is_blocked, DEGREE=degree, WGMMA=make.wgmma,
    )  # fmt: skip
    return splits, partial, partial_degree

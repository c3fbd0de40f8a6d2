"""Plans of the backward pass's forms, as `forms` has those of the forward pass."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from anchor_forms import skewed_backward
from anchor_forms.forms import Asked, cleared_counters, expect_hopper, expect_one_tile, for_maps, rounds
from attentions.kernels.anchor import choices, plan_backward
from attentions.kernels.anchor.devices import Device
from attentions.kernels.anchor.plan import (
    Builder,
    Memory,
    Plan,
    for_kernel,
    kept_places,
    strides_like,
    strides_of,
)
from attentions.kernels.anchor.tiles import Tile

Form = Callable[[Tensor, Tensor, Tensor, Tensor, Device], Plan]  # of g, k, v, anchors


def split(g: Tensor, k: Tensor, v: Tensor, anchors: Tensor, device: Device) -> Plan:
    """What anchor:split runs."""
    kind, parts = choices.shape_class(k, anchors, "backward"), k.shape[0] * k.shape[1]
    sizes = {"n": k.shape[2], "m": anchors.shape[-2], "parts": parts, "device": device}
    choice = choices.default_choice(kind, **sizes, schedule="split")
    return plan_backward.backward(g, k, v, anchors, device=device, choice=choice)


def one(
    g: Tensor, k: Tensor, v: Tensor, anchors: Tensor, device: Device, *,
    tile: Tile, tiles: int, lag: int, places: int, kept: bool,
) -> Plan:  # fmt: skip
    """The skewed launch, a program a multiprocessor, items of `tiles` tiles; see skewed_backward for the rest.

    Raises: ValueError for a head whose items are more than the programs that run at once, for other shapes and devices.
    """
    expect_one_tile(k, anchors)
    expect_hopper(device)
    if not tiles <= lag < 2 * tiles:
        raise ValueError(f"lag {lag} and tiles {tiles} make no order that ends")
    if places < lag + 2:
        raise ValueError(f"a lag of {lag} tiles takes {lag + 2} places, not {places}")
    make = Builder(k, anchors, "backward", device=device, precision="ieee")
    splits, programs, rows = rounds(make, tiles * tile.tokens, device.processors)
    means, degree, _ = kept_places(make.parts, make.m, make.d)
    partial_sums, shares = make.floats(programs, make.m, make.d), make.floats(programs, make.m, make.d)
    grad_sums, grad_degree = make.floats(make.parts, make.m, make.d), make.floats(make.parts, make.m)
    counters = cleared_counters(make)
    strides = {
        "k": strides_of(k), "v": strides_of(v), "g": strides_of(g),
        "grad_k": strides_like(k), "grad_v": strides_like(v),
    }  # fmt: skip
    arguments = {
        "k": Memory("k", k.dtype), "v": Memory("v", v.dtype), "g": Memory("g", g.dtype),
        "anchors": Memory("anchors", anchors.dtype), "means": means, "degree": degree, "partial": partial_sums,
        "grad_sums": grad_sums, "grad_degree": grad_degree, "grad_k": Memory("grad_k", k.dtype),
        "grad_v": Memory("grad_v", v.dtype), "grad_partial": shares, "counters": counters, "scale": make.scale,
        "root": make.root, "n": make.n, "m": make.m, "heads": make.h, "parts": make.parts, "programs": programs,
        "splits": splits,
        **{f"{name}_strides": for_maps(for_kernel(x)) for name, x in strides.items()},
    }  # fmt: skip
    constants = {
        "SLICES": -(-make.m // rows), "ROWS": rows, "TILES": tiles, "LAG": lag,
        "PLACES": places, "KEPT": kept, "BLOCK_N": tile.tokens, "BLOCK_M": make.kind.m_pad, "D": make.d,
        "D_PAD": make.kind.d_pad, "PADDED": make.m % make.kind.m_pad != 0,
    }  # fmt: skip
    together = {"launch_cooperative_grid": True}
    kernel = skewed_backward.skewed_backward_kernel
    make.launches.append(Asked(kernel, programs, arguments, constants, tile.warps, tile.stages, also=together))
    plan_backward.add_anchor_gradient(make, shares, anchors, programs)
    choice = choices.Choice(schedule="skewed", tiles={"skewed": tile}, splits=splits, chunks=splits)
    return make.plan(plan_backward.TENSORS, choice)


def skew(g: Tensor, k: Tensor, v: Tensor, anchors: Tensor, device: Device) -> Plan:
    """The skewed launch with tiles of 128 tokens: K and G of 640 in shared memory, items of 256, while a head's fit;
    else K of 896, items of 512, and G read again."""
    tile = Tile(128, 0, 8, 1, 1)
    if k.shape[2] <= device.processors * 256:
        return one(g, k, v, anchors, device, tile=tile, tiles=2, lag=3, places=5, kept=True)
    return one(g, k, v, anchors, device, tile=tile, tiles=4, lag=5, places=7, kept=False)


def skew_finely(g: Tensor, k: Tensor, v: Tensor, anchors: Tensor, device: Device) -> Plan:
    """The same with tiles of 64, whose softmax crosses warps: K and G of 704 tokens fit, and items of 512 with them."""
    tile = Tile(64, 0, 8, 1, 1)
    if k.shape[2] <= device.processors * 256:
        return one(g, k, v, anchors, device, tile=tile, tiles=4, lag=6, places=10, kept=True)
    return one(g, k, v, anchors, device, tile=tile, tiles=8, lag=9, places=11, kept=True)


# By name, the most promising first; split is what they are held against.
FORMS: dict[str, Form] = {"split": split, "skewed": skew, "skewed fine": skew_finely}

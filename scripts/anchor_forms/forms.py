"""Plans of each form, over tensors that may be on "meta", for a device that need not be here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from anchor_forms import launched, skewed, specialised
from attentions.kernels.anchor import choices, plan_forward
from attentions.kernels.anchor.devices import INTERPRETED, Device
from attentions.kernels.anchor.plan import (
    ALIGNMENT,
    FEW_SPLITS,
    Builder,
    Launch,
    Memory,
    Plan,
    for_kernel,
    kept_places,
    strides_like,
    strides_of,
)
from attentions.kernels.anchor.tiles import Tile

Form = Callable[[Tensor, Tensor, Tensor, Device], Plan]


@dataclass(frozen=True)
class Asked(Launch):
    """A launch with options of the compiler's of its own: `launch_pdl`, `launch_cooperative_grid`."""

    also: Mapping[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        return {**super().options, **self.also}


def split(k: Tensor, v: Tensor, anchors: Tensor, device: Device) -> Plan:
    """What anchor:split runs."""
    kind, parts = choices.shape_class(k, anchors, "forward"), k.shape[0] * k.shape[1]
    sizes = {"n": k.shape[2], "m": anchors.shape[-2], "parts": parts, "device": device}
    return plan_forward.forward(
        k, v, anchors, device=device, choice=choices.default_choice(kind, **sizes, schedule="split")
    )


def two(
    k: Tensor, v: Tensor, anchors: Tensor, device: Device, *,
    early: bool = False, mapped: bool = False, kept: bool = False,
) -> Plan:  # fmt: skip
    """Split's plan with the kernels of `launched`, cut as split cuts it.

    Raises: ValueError where split has other than two launches.
    """
    expect_one_tile(k, anchors)
    found = split(k, v, anchors, device)
    if [launch.kernel.__name__ for launch in found.launches] != ["gather_kernel", "scatter_kernel"]:
        raise ValueError(f"takes a head of up to {FEW_SPLITS} splits, not {found.choice.splits}")
    also = {"EARLY": early and not INTERPRETED, "MAPPED": mapped}
    hints = {"EVICT_K": "evict_last" if kept else "", "EVICT_V": "evict_first" if kept else ""}
    gather, scatter = found.launches
    first = {"kernel": launched.launched_gather_kernel, "constants": {**gather.constants, **also, **hints}}
    second = {"kernel": launched.launched_scatter_kernel, "constants": {**scatter.constants, **also}}
    dependent = {"launch_pdl": True} if early else {}
    launches = Asked(**vars(gather) | first), Asked(**vars(scatter) | second, also=dependent)
    return replace(found, launches=launches)


def one(
    k: Tensor, v: Tensor, anchors: Tensor, device: Device, *,
    tile: Tile, tiles: int, lag: int, reduce: int, sums: int | None = None,
) -> Plan:  # fmt: skip
    """The skewed launch; tile.resident programs a multiprocessor, items of `tiles` tiles; see skewed for lag, reduce.
    sums: places of partial sums a program, by default as many as skewed needs.

    Raises: ValueError for a head whose items are more than the programs that run at once.
    """
    expect_one_tile(k, anchors)
    if not (0 <= reduce <= lag - tiles < tiles and reduce < tiles):
        raise ValueError(f"reduce {reduce}, lag {lag} and tiles {tiles} make no order that ends")
    make = Builder(k, anchors, "forward", device=device, precision="ieee")
    at_once = device.processors * tile.resident
    span = tiles * tile.tokens
    splits, programs, rows = rounds(make, span, at_once)
    sums = sums or (2 if lag == 2 * tiles - 1 else 1)
    means, degree, _ = kept_places(make.parts, make.m, make.d)
    partial, partial_degree = make.floats(programs * sums, make.m, make.d), make.floats(programs * sums, make.m)
    counters = cleared_counters(make)
    arguments = {
        "k": Memory("k", k.dtype), "v": Memory("v", v.dtype), "anchors": Memory("anchors", anchors.dtype),
        "partial": partial, "partial_degree": partial_degree, "means": means, "degree": degree,
        "out": Memory("out", k.dtype), "counters": counters, "scale": make.scale, "n": make.n, "m": make.m,
        "heads": make.h, "parts": make.parts, "programs": programs, "k_strides": for_kernel(strides_of(k)),
        "v_strides": for_kernel(strides_of(v)), "out_strides": for_kernel(strides_like(k)),
    }  # fmt: skip
    constants = {
        "SPLITS": splits, "SLICES": -(-make.m // rows), "ROWS": rows, "TILES": tiles, "LAG": lag, "REDUCE": reduce,
        "SUMS": sums, "BLOCK_N": tile.tokens, "BLOCK_M": make.kind.m_pad, "D": make.d, "D_PAD": make.kind.d_pad,
        "EVEN": make.n % span == 0, "PADDED": make.m % make.kind.m_pad != 0, "PRECISION": make.precision,
    }  # fmt: skip
    together = {"launch_cooperative_grid": True}
    launch = Asked(skewed.skewed_kernel, programs, arguments, constants, tile.warps, tile.stages, also=together)
    make.launches.append(launch)
    choice = choices.Choice(schedule="skewed", tiles={"skewed": tile}, splits=splits, chunks=splits)
    return make.plan(plan_forward.TENSORS, choice)


def roles(k: Tensor, v: Tensor, anchors: Tensor, device: Device, *, tile: Tile, tiles: int, places: int) -> Plan:
    """The specialised launch, cut as the skewed one is; tile: warps that gather, stages of loads; places: A's tiles.

    Raises: ValueError as `one`, for strides that no tensor map has, and where A of an item has no place.
    """
    if places < tiles or places % tiles:
        raise ValueError(f"places {places} are no multiple of the {tiles} tiles of an item")
    expect_hopper(device)
    cut = one(k, v, anchors, device, tile=tile, tiles=tiles, lag=tiles, reduce=0, sums=places // tiles)
    clear, launch = cut.launches
    strides = {name: for_maps(launch.arguments[name]) for name in ("k_strides", "v_strides", "out_strides")}
    names = [name for name in specialised.specialised_kernel.arg_names if name.isupper()]
    constants = {**launch.constants, "STAGES": tile.stages, "PLACES": places}
    replaced = {
        "kernel": specialised.specialised_kernel, "arguments": {**launch.arguments, **strides},
        "constants": {name: constants[name] for name in names},
    }  # fmt: skip
    choice = replace(cut.choice, schedule="specialised", tiles={"specialised": tile})
    return replace(cut, launches=(clear, replace(launch, **replaced)), choice=choice)


def for_maps(strides: tuple[int, int, tl.constexpr]) -> tuple[int, int, tl.constexpr]:
    """Strides for a tensor map: multiples of 16 bytes, and none of zero where there is but one."""
    batch, head, token = (stride or 8 for stride in (strides[0], strides[1], strides[2].value))
    if any(stride % 8 for stride in (batch, head, token)):
        raise ValueError(f"takes strides of multiples of 8 elements, not {batch}, {head}, {token}")
    return batch, head, tl.constexpr(token)


def rounds(make: Builder, span: int, at_once: int) -> tuple[int, int, int]:
    """A head's items of `span` tokens, the programs (a multiple of them, `at_once` at the most), the anchors of whose
    sums each item makes means.

    Raises: ValueError for a head whose items are more than the programs that run at once.
    """
    splits = -(-make.n // span)
    if splits > at_once:
        most = at_once * span
        raise ValueError(f"takes a head of up to {most} tokens, which are on the device at once, not {make.n}")
    return splits, splits * min(at_once // splits, make.parts), power(-(-make.m // splits))


def cleared_counters(make: Builder) -> Memory:
    """Two counters a head, and the launch that zeroes them."""
    counters, size = Memory("workspace", torch.int32, make.size), 2 * make.parts
    make.size += -(-4 * size // ALIGNMENT) * ALIGNMENT
    make.small(skewed.clear_kernel, -(-size // 1024), {"counters": counters, "size": size}, BLOCK=1024)
    return counters


def expect_hopper(device: Device) -> None:
    if device.capability != 90:
        raise ValueError(f"takes a device of compute capability 9.0, not {device.capability / 10}")


def expect_one_tile(k: Tensor, anchors: Tensor) -> None:
    kind = choices.shape_class(k, anchors, "forward")
    if (kind.bits, kind.m_pad, kind.d_pad, anchors.dim()) != (16, 64, 64, 2):
        raise ValueError("takes 16-bit inputs and anchors (m, d) of all heads, m and d from 33 to 64")


def power(size: int) -> int:
    """The least power of two that is not smaller."""
    return 1 << (size - 1).bit_length()


def skew(k: Tensor, v: Tensor, anchors: Tensor, device: Device) -> Plan:
    """The skewed launch with items of 256 tokens while a head's fit, else of 512, whose window leaves room for fewer
    loads under way. Larger windows spill with Triton 3.6."""
    if k.shape[2] <= device.processors * 256:
        return one(k, v, anchors, device, tile=Tile(128, 0, 8, 3, 1), tiles=2, lag=3, reduce=0)
    return one(k, v, anchors, device, tile=Tile(128, 0, 8, 2, 1), tiles=4, lag=5, reduce=0)


def specialise(k: Tensor, v: Tensor, anchors: Tensor, device: Device) -> Plan:
    """The specialised launch with A of 1024 tokens in shared memory: two items of 512, of 1024 one where a head needs
    them, of 256 four where a head has few tokens, so that more programs have some."""
    n = k.shape[2]
    tiles = 2 if n <= 2048 else 4 if n <= device.processors * 512 else 8
    return roles(k, v, anchors, device, tile=Tile(128, 0, 8, 2, 1), tiles=tiles, places=8)


# By name, the most promising first; split is what they are held against.
FORMS: dict[str, Form] = {
    "split": split,
    "early": partial(two, early=True),
    "mapped": partial(two, mapped=True),
    "early mapped": partial(two, early=True, mapped=True),
    "kept": partial(two, kept=True),
    "skewed": skew,
    "skewed deep": partial(one, tile=Tile(128, 0, 8, 5, 1), tiles=2, lag=3, reduce=0),
    "specialised": specialise,
}

"""Gluon's names as gluon_interpreted has them: memory is tensors, an operation first lets others have their turn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

COPY = "a tensor map's copy"


class Disorder(Exception):
    """A barrier or a fence is missing."""


class Pointer:
    """A place in a flat tensor, or many."""

    def __init__(self, flat: Tensor, offset: Any = 0) -> None:
        self.flat, self.offset = flat, offset
        self.dtype = SimpleNamespace(element_ty=flat.dtype)

    def __add__(self, other: Any) -> Pointer:
        return Pointer(self.flat, self.offset + other)


class Barrier:
    """An mbarrier: its phase ends when `count` have arrived and all expected bytes are there."""

    def __init__(self) -> None:
        self.count = self.pending = self.phase = self.bytes = 0

    def arrive(self, arrived: int, expected: int) -> None:
        self.pending -= arrived
        self.bytes += expected
        if self.pending < 0:
            raise Disorder("more have arrived at an mbarrier than it counts")
        if self.pending == 0 and self.bytes == 0:
            self.phase, self.pending = self.phase ^ 1, self.count


@dataclass
class Shared:
    """Shared memory, or a view of it; `name` tells its places apart."""

    at: Any
    values: Any
    name: str
    layout: None = None

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    def index(self, place: int) -> Any:
        found = self.values[place]
        return found if isinstance(found, Barrier) else Shared(self.at, found, f"{self.name}[{place}]")

    def reshape(self, shape: list[int]) -> Shared:
        return Shared(self.at, self.values.view(shape), self.name)

    def permute(self, order: list[int]) -> Shared:
        return Shared(self.at, self.values.permute(order), self.name)

    def store(self, value: Tensor) -> None:
        self.at.pause()
        if self.name in self.at.me.read:
            raise Disorder(f"{self.at.me.name}: no barrier between reading {self.name} and a store to it")
        assert (value.shape, value.dtype) == (self.values.shape, self.values.dtype)
        self.values.copy_(value)
        self.at.me.unfenced.add(self.name)


@dataclass
class Map:
    """A tensor map; a tile begins at a place and may lie over the tensor's end."""

    pointer: Pointer
    shape: list[int]
    strides: list[int]
    block: list[int]

    def inside(self, at: list[int]) -> tuple[Tensor, tuple[slice, ...]]:
        """The part of the tensor that a tile has, and where in the tile that lies."""
        sizes = [max(0, min(size, end - start)) for size, end, start in zip(self.block, self.shape, at, strict=True)]
        offset = self.pointer.flat.storage_offset() + self.pointer.offset
        offset += sum(start * stride for start, stride in zip(at, self.strides, strict=True)) if all(sizes) else 0
        return torch.as_strided(self.pointer.flat, sizes, self.strides, offset), tuple(map(slice, sizes))


def language(at: Any) -> dict[str, Any]:
    """What a kernel's names mean to the interpreter `at`."""
    at_all = dict.fromkeys(
        ("NVMMADistributedLayout", "SliceLayout", "BlockedLayout", "DotOperandLayout"), lambda *_: None
    )

    def places(pointer: Pointer, mask: Any) -> tuple[Tensor, Any]:
        where = torch.as_tensor(pointer.offset)
        mask = torch.tensor(True) if mask is None else mask
        where, mask = torch.broadcast_tensors(where, mask)
        inside = (where[mask] >= 0) & (where[mask] < len(pointer.flat))
        assert inside.all(), "outside of a tensor"
        return torch.where(mask, where, 0), mask

    def load(pointer: Pointer, mask: Any = None, other: float = 0.0, cache_modifier: str = "") -> Tensor:
        at.pause()
        where, mask = places(pointer, mask)
        return torch.where(mask, pointer.flat[where], other)

    def store(pointer: Pointer, value: Tensor, mask: Any = None) -> None:
        at.pause()
        at.me.apart = "a store"
        where, mask = places(pointer, mask)
        pointer.flat[where[mask]] = value[mask]

    def atomic_add(pointer: Pointer, value: int, sem: str, scope: str) -> int:
        place = int(pointer.offset)
        if value:
            at.expect_together("an atomic operation")
            assert (sem, scope) == ("release", "gpu")
            at.pause()
        else:
            assert (sem, scope) == ("acquire", "gpu")
            seen = at.me.polled
            if seen is None or seen[0] != place:
                at.pause()
            else:
                at.pause(lambda: int(pointer.flat[place]) != seen[1], f"counter {place}")
        before = int(pointer.flat[place])
        at.me.polled = None if value else (place, before)
        pointer.flat[place] += value
        return before

    def fence() -> None:
        at.me.unjoined |= at.me.unfenced
        at.me.unfenced.clear()

    def barrier() -> None:
        at.me.unjoined.clear()
        at.me.read.clear()
        at.me.apart = ""

    def allocate(dtype: Any, shape: list[int], layout: Any, value: Tensor | None = None) -> Shared:
        at.allocated += 1
        if dtype is torch.int64:
            return Shared(at, [Barrier() for _ in range(shape[0])], f"mbarriers {at.allocated}")
        memory = Shared(at, torch.full(shape, float("nan"), dtype=dtype), f"memory {at.allocated}")
        if value is not None:
            memory.store(value)
        return memory

    def init(barrier: Barrier, count: int) -> None:
        barrier.count = barrier.pending = count
        at.me.apart = "an mbarrier's beginning"

    def wait(barrier: Barrier, phase: int) -> None:
        at.pause(lambda: barrier.phase != phase, f"the mbarrier's phase {phase}")

    def arrive(barrier: Barrier) -> None:
        at.pause()
        at.expect_together("an mbarrier")
        barrier.arrive(1, 0)

    def expect(barrier: Barrier, size: int) -> None:
        at.pause()
        barrier.arrive(1, size)

    def make_map(
        pointer: Pointer, shape: list[int], strides: list[int], block_shape: list[int], layout: Any
    ) -> Map:  # fmt: skip
        assert all(stride > 0 and stride * pointer.flat.itemsize % 16 == 0 for stride in strides[:-1])
        return Map(pointer, shape, strides, block_shape)

    def load_async(source: Map, place: list[int], barrier: Barrier, target: Shared) -> None:
        at.pause()
        target.values.fill_(float("nan"))

        def copy() -> None:
            found, inside = source.inside(place)
            target.values.zero_()
            target.values[inside] = found
            barrier.arrive(0, -target.values.numel() * target.values.itemsize)

        at.copies.append(copy)

    def store_async(target: Map, place: list[int], source: Shared) -> None:
        at.pause()
        at.expect_visible(source.name, COPY)
        if at.me.apart != COPY:  # one thread makes both
            at.expect_together(COPY)
        me, me.stores, me.apart = at.me, at.me.stores + 1, COPY

        def copy() -> None:
            found, inside = target.inside(place)
            found.copy_(source.values[inside])
            me.stores -= 1

        at.copies.append(copy)

    def store_wait(pending: int) -> None:
        me = at.me
        at.pause(lambda: me.stores <= pending, "its copies")

    def mma(
        a: Shared | Tensor, b: Shared, total: Any, use_acc: bool = True, is_async: bool = False
    ) -> Callable[[], Tensor]:
        at.pause()
        for factor in (a, b):
            if isinstance(factor, Shared):
                at.expect_visible(factor.name, "a product")
                at.me.read.add(factor.name)

        def product() -> Tensor:
            left = a.values if isinstance(a, Shared) else a
            before = (total() if callable(total) else total) if use_acc else 0.0
            return left.float() @ b.values.float() + before

        return product

    def mma_wait(outstanding: int, deps: list[Callable[[], Tensor]]) -> Any:
        at.pause()
        at.me.apart = "a product"
        found = tuple(product() for product in deps)
        return found if len(deps) > 1 else next(iter(found))

    def warp_specialize(work: list[tuple[Any, tuple[Any, ...]]], warps: list[int], registers: list[int]) -> None:
        at.expect_together("the roles")
        assert not at.me.unfenced | at.me.unjoined, "no fence and barrier before the roles"
        for (function, given), number in zip(work, (at.me.warps, *warps), strict=True):
            at.add_role(function.__name__, number, lambda f=function, g=given: f(*g))

    gl = SimpleNamespace(
        **at_all, NVMMASharedLayout=SimpleNamespace(get_default_for=lambda *_: None), constexpr=None,
        float32=torch.float32, int32=torch.int32, int64=torch.int64, load=load, store=store, atomic_add=atomic_add,
        allocate_shared_memory=allocate, warp_specialize=warp_specialize, static_range=range,
        program_id=lambda axis: at.me.program, num_warps=lambda: at.me.warps,
        arange=lambda start, end, layout=None: torch.arange(start, end),
        zeros=lambda shape, dtype, layout=None: torch.zeros(shape, dtype=dtype),
        full=lambda shape, value, dtype, layout=None: torch.full(shape, value, dtype=dtype),
        expand_dims=torch.unsqueeze, convert_layout=lambda value, layout: value, where=torch.where,
        exp2=torch.exp2, sum=torch.sum, max=torch.amax, cdiv=lambda a, b: math.ceil(a / b),
    )  # fmt: skip
    barriers = SimpleNamespace(MBarrierLayout=lambda: None, init=init, wait=wait, arrive=arrive, expect=expect)
    return {
        "gl": gl, "tl": gl, "mbarrier": barriers, "barrier": barrier, "fence_async_shared": fence,
        "tma": SimpleNamespace(make_tensor_descriptor=make_map, store_wait=store_wait), "load_async": load_async,
        "store_async": store_async, "warpgroup_mma": mma, "warpgroup_mma_wait": mma_wait,
    }  # fmt: skip

"""What a plan is: launches in order, over memory that is named, not held.

A plan is data: it can be run (`Plan.run`), compiled ahead of time (attentions.kernels.ahead) or counted, it can be made
from tensors on "meta" for a device that is not there, and it can be kept, since it holds no tensor. Making one:
`plan_forward.forward`, `plan_backward.backward`.

    plan = forward(k, v, anchors, device=H100)      # k, v (b, h, n, d), anchors (m, d) or (h, m, d)
    [launch.kernel.__name__ for launch in plan.launches]        # ['gather_kernel', 'scatter_kernel']
    plan.run({"k": k, "v": v, "anchors": anchors, "out": out, "kept": kept})
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from attentions.kernels.anchor.choices import Choice, ShapeClass, shape_class
from attentions.kernels.anchor.devices import INTERPRETED, Device
from attentions.kernels.anchor.tiles import Tile

WORKSPACE = "workspace"  # the one memory that a run allocates itself

# Up to this many splits the second stage adds them itself; beyond, a launch of its own does it in parallel, because
# every program would read every split.
FEW_SPLITS = 8
ALIGNMENT = 128  # bytes, of the parts of a memory

Strides = tuple[int, int, int]  # of batch, head and token, in elements

Allocate = Callable[[tuple[int, ...], tuple[int, ...], torch.dtype], Tensor]  # shape, strides, dtype

allocate: Callable[..., Tensor] = torch.empty_strided  # tests replace it to poison what is handed out


def allocator(device: torch.device) -> Allocate:
    """What known calls allocate with while `device` is current: as `allocate`, in less than half of its host time, by
    the function that compiled code calls; by `allocate` itself where PyTorch has none or a test has replaced it."""
    quick = getattr(getattr(torch._C, "_dynamo", None), "guards", None)
    found = getattr(quick, f"_empty_strided_{device.type}", None)
    if found is not None and allocate is torch.empty_strided:
        return found
    return lambda shape, strides, dtype: allocate(shape, strides, dtype=dtype, device=device)


@dataclass(frozen=True)
class Memory:
    """A place that a kernel is given: `offset` bytes into the tensor of that name."""

    tensor: str
    dtype: torch.dtype
    offset: int = 0

    def of(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The place among tensors that are there."""
        tensor = tensors[self.tensor]
        if self.offset == 0 and tensor.dtype == self.dtype:
            return tensor
        return tensor.view(self.dtype)[self.offset // self.dtype.itemsize :]


@dataclass(frozen=True)
class Launch:
    """One kernel launch. arguments: by parameter, a Memory, a number or a tuple of strides; constants: tl.constexpr."""

    kernel: Any
    programs: int
    arguments: Mapping[str, Any]
    constants: Mapping[str, Any]
    warps: int
    stages: int

    def run(self, tensors: Mapping[str, Tensor]) -> Any:
        """Enqueue it on the current stream by Triton's own launcher; returns the compiled kernel, interpreted None."""
        return self.kernel[(self.programs,)](**self._bound(tensors))

    def compiled(self, tensors: Mapping[str, Tensor]) -> Any:
        """The kernel that it launches, compiled and not launched."""
        return self.kernel.warmup(grid=(self.programs,), **self._bound(tensors))

    def _bound(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        given = {name: x.of(tensors) if isinstance(x, Memory) else x for name, x in self.arguments.items()}
        return given | dict(self.constants) | self.options

    @property
    def options(self) -> dict[str, Any]:
        """What the compiler is told beside the constants."""
        # Triton 3.9 warns unless fusing multiply and add is asked for or refused; earlier versions fuse.
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Launches in order. tensors: the names that a run is given, inputs first."""

    launches: tuple[Launch, ...]
    tensors: tuple[str, ...]
    workspace_bytes: int
    choice: Choice

    def workspace(self, device: torch.device) -> Tensor:
        """Memory for one run, from the caching allocator: it belongs to the stream that runs."""
        return allocate((self.workspace_bytes // 4,), (1,), dtype=torch.float32, device=device)

    def run(self, given: Mapping[str, Tensor]) -> list[Any]:
        """Enqueue all launches on the current stream of the tensors' own device; returns the compiled kernels.

        Triton launches on the current device, whichever holds the tensors, and PyTorch sets none for an operator
        written in Python.
        """
        if given.keys() != set(self.tensors):
            raise KeyError(f"this plan runs on {', '.join(self.tensors)}, not on {', '.join(given)}")
        first = given[self.tensors[0]]
        with torch.cuda.device_of(first):
            workspace = self.workspace(first.device)
            return [launch.run({**given, WORKSPACE: workspace}) for launch in self.launches]


class Builder:
    """Collects the launches of a pass, with the constants that all of them share, and lays out their workspace."""

    def __init__(self, k: Tensor, anchors: Tensor, phase: str, *, device: Device, precision: str) -> None:
        self.b, self.h, self.n, self.d = k.shape
        self.m, self.parts = anchors.shape[-2], k.shape[0] * k.shape[1]
        self.per_head = anchors.dim() == 3
        self.kind: ShapeClass = shape_class(k, anchors, phase)
        self.device, self.precision = device, precision if k.dtype == torch.float32 else "ieee"
        self.precision = "interpreted" if INTERPRETED else self.precision
        self.wgmma = device.capability == 90
        self.root = 1 / math.sqrt(self.d)
        self.scale = math.log2(math.e) * self.root
        self.launches: list[Launch] = []
        self.size = 0

    def floats(self, *shape: int) -> Memory:
        """Part of the workspace."""
        part = Memory(WORKSPACE, torch.float32, self.size)
        self.size += -(-4 * math.prod(shape) // ALIGNMENT) * ALIGNMENT
        return part

    def launch(
        self, kernel: Any, tile: Tile, programs: int, arguments: Mapping[str, Any], **constants: Any
    ) -> None:  # fmt: skip
        """A kernel that goes through tiles of tokens."""
        anchors = tile.anchors or self.kind.m_pad
        shared = {
            "BLOCK_N": tile.tokens, "BLOCK_M": anchors, "D": self.d, "D_PAD": self.kind.d_pad,
            "EVEN": self.n % tile.tokens == 0, "PADDED": self.m % anchors != 0, "PRECISION": self.precision,
            "PER_HEAD": self.per_head,
        }  # fmt: skip
        self.launches.append(Launch(kernel, programs, arguments, shared | constants, tile.warps, tile.stages))

    def small(self, kernel: Any, programs: int, arguments: Mapping[str, Any], **constants: Any) -> None:
        """A kernel that goes through (m, d) matrices only."""
        self.launches.append(Launch(kernel, programs, arguments, constants, 4, 2))

    def reduction(self) -> tuple[int, int]:
        """Anchors and splits of one tile of a reduction, 2048 to 4096 numbers."""
        kind = self.kind
        return min(max(4, 256 // kind.d_pad, kind.m_pad // 8), 512 // kind.d_pad), 8

    def plan(self, tensors: tuple[str, ...], choice: Choice) -> Plan:
        """What was collected."""
        return Plan(
            launches=tuple(launch for launch in self.launches if launch.programs), tensors=tensors,
            workspace_bytes=self.size, choice=choice,
        )  # fmt: skip


def strides_of(tensor: Tensor) -> Strides:
    """Of a (b, h, n, d) tensor; 0 where there is but one, whatever PyTorch says: Triton specialises kernels by them."""
    b, h, n, _ = tensor.shape
    batch, head, token, _ = tensor.stride()
    return batch if b > 1 else 0, head if h > 1 else 0, token if n > 1 else 0


def strides_like(k: Tensor) -> Strides:
    """Of a new (b, h, n, d) tensor laid out as `k` is: token-major (b, n, h, d) in memory if k's heads lie inside its
    tokens, so that a layer's reshape to (b, n, h·d) copies nothing."""
    _, h, n, d = k.shape
    return (n * h * d, d, h * d) if k.stride(1) < k.stride(2) else (h * n * d, n * d, d)


def output_like(k: Tensor) -> Tensor:
    """An empty tensor of those strides."""
    return allocate(tuple(k.shape), (*strides_like(k), 1), dtype=k.dtype, device=k.device)


def for_kernel(strides: Strides) -> tuple[int, int, tl.constexpr]:
    """Strides as most kernels take them: the one between tokens is a constant of the compiled kernel."""
    batch, head, token = strides
    return batch, head, tl.constexpr(token)


def kept_places(parts: int, m: int, d: int) -> tuple[Memory, Memory, int]:
    """W (b·h, m, d) and δ (b·h, m), which a forward pass leaves for the backward pass, in one tensor `kept` of float32,
    and how many elements that has: no gap, which would hold what nobody wrote."""
    return Memory("kept", torch.float32), Memory("kept", torch.float32, 4 * parts * m * d), parts * m * (d + 1)

"""Which launches compute anchor attention for given tensors on a given device: tiles, splits, workspaces, order.

A plan is data: it can be run (`Plan.run`), compiled ahead of time (attentions.kernels.ahead) or counted, and it can be
made from tensors on "meta" for a device that is not there.

    plan = forward(k, v, anchors, device=H100)      # k, v (b, h, n, d), anchors (m, d)
    [launch.kernel.__name__ for launch in plan.launches]        # ['gather_kernel', 'scatter_kernel']
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from attentions.kernels import anchor_device as device_code

HEAD_DIMS = (32, 64, 80, 96, 128)
MAX_ANCHORS = 512
MAX_TOKENS = 2**22
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
SCHEDULES = ("split", "persistent")

# Up to this many splits the scatter (and the backward pass) adds them itself; beyond, a launch of its own does it in
# parallel, because every program would read every split.
FEW_SPLITS = 8

allocate: Callable[..., Tensor] = torch.empty  # tests replace it to poison what is handed out


@dataclass(frozen=True)
class Device:
    """What a plan needs to know: multiprocessors, L2 in bytes, compute capability × 10."""

    name: str
    processors: int
    l2_bytes: int
    capability: int


H100 = Device("NVIDIA H100 80GB HBM3", 132, 50 * 2**20, 90)
A100 = Device("NVIDIA A100-SXM4-80GB", 108, 40 * 2**20, 80)
INTERPRETER = Device("interpreter", 4, 2**20, 90)


@cache
def device_of(device: torch.device) -> Device:
    """The device as a plan sees it; a small made-up one for the CPU, where only the interpreter runs."""
    if device.type != "cuda":
        return INTERPRETER
    found = torch.cuda.get_device_properties(device)
    return Device(found.name, found.multi_processor_count, found.L2_cache_size, 10 * found.major + found.minor)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Tokens and anchors a tile holds, warps a program, depth of the load pipeline."""

    tokens: int
    anchors: int
    warps: int
    stages: int


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Everything about a pass that may be tuned; None leaves a number to the heuristic.

    schedule: `split` (a launch a stage) or `persistent` (one launch, the second reading from L2);
    gather, scatter: the tiles of the two stages (backward: of dW, and of dK, dV and dU; persistent: scatter's for both);
    splits: programs a head is cut into; resident: programs a multiprocessor is expected to hold;
    l2_share: share of L2 that one group of heads may take up with what is read twice.
    """

    schedule: str
    gather: Tile
    scatter: Tile
    splits: int | None = None
    resident: int = 2
    l2_share: float = 0.2


@dataclass(frozen=True)
class Launch:
    """One kernel launch."""

    kernel: Any
    programs: int
    arguments: tuple[Any, ...]
    constants: Mapping[str, Any]
    warps: int
    stages: int

    def run(self) -> None:
        """Enqueue it on the current stream."""
        # Triton 3.9 warns unless fusing multiply and add is asked for or refused; earlier versions fuse.
        self.kernel[(self.programs,)](
            *self.arguments, **self.constants, num_warps=self.warps, num_stages=self.stages, enable_fp_fusion=True
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Launches in order and the tensors that they fill."""

    launches: tuple[Launch, ...]
    results: tuple[Tensor, ...]
    workspace_bytes: int
    choice: Choice

    def run(self) -> tuple[Tensor, ...]:
        """Execute all launches and return the results."""
        for launch in self.launches:
            launch.run()
        return self.results


@dataclass(frozen=True)
class ShapeClass:
    """What decides tiles: shapes of one class share compiled kernels and tuning."""

    d: int
    d_pad: int
    m_pad: int
    bits: int
    phase: str

    @property
    def elements(self) -> int:
        """m × d of an accumulator, padded."""
        return self.m_pad * self.d_pad


def shape_class(k: Tensor, anchors: Tensor, phase: str) -> ShapeClass:
    """The class of a problem; phase is `forward` or `backward`."""
    m, d = anchors.shape
    m_pad = max(16, triton.next_power_of_2(m))
    return ShapeClass(d, max(16, triton.next_power_of_2(d)), m_pad, 8 * k.element_size(), phase)


def unsupported(k: Tensor, v: Tensor, anchors: Tensor) -> str | None:
    """Why these kernels do not take the tensors, or None."""
    m, d = anchors.shape
    reason = limits(n=k.shape[-2], d=d, m=m, dtype=k.dtype)
    if reason:
        return reason
    if k.dim() != 4 or k.shape != v.shape or k.shape[-1] != d:
        return f"needs k and v (b, h, n, d) and anchors (m, d), not {[tuple(t.shape) for t in (k, v, anchors)]}"
    if v.dtype != k.dtype:
        return f"needs k and v of one dtype, not {k.dtype} and {v.dtype}"
    return None


def limits(*, n: int, d: int, m: int, dtype: torch.dtype) -> str | None:
    """Why these kernels do not take a size, or None."""
    if dtype not in DTYPES:
        return f"takes float16, bfloat16 and float32, not {str(dtype).removeprefix('torch.')}"
    if d not in HEAD_DIMS:
        return f"takes head_dim {', '.join(map(str, HEAD_DIMS))}, not {d}"
    if not 1 <= m <= MAX_ANCHORS:
        return f"takes 1 to {MAX_ANCHORS} anchors, not {m}"
    if not 1 <= n <= MAX_TOKENS:
        return f"takes 1 to {MAX_TOKENS} tokens, not {n}"
    return None


def blocked(kind: ShapeClass) -> bool:
    """Whether the anchors need several tiles."""
    return kind.elements > _WHOLE[kind.phase, kind.bits]


# The largest padded m × d that one program holds, read off the ahead-of-time reports (docs/performance.md): beyond it
# the accumulators and the weights spill.
_WHOLE = {("forward", 16): 16384, ("forward", 32): 4096, ("backward", 16): 8192, ("backward", 32): 2048}


def default_choice(kind: ShapeClass, *, tokens: int, heads: int, device: Device) -> Choice:
    """The heuristic: what to run without tuning. heads = b·h."""
    raise NotImplementedError

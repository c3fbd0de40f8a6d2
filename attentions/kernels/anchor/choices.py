"""What may be tuned about a pass, what a shape allows, and what to take where nobody has tuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
import triton
from torch import Tensor

from attentions.kernels.anchor.devices import Device
from attentions.kernels.anchor.tiles import TILES, Tile

HEAD_DIMS = (32, 64, 80, 96, 128)  # those with tests and reports; any from 1 to the last is taken
# Elements of which a head's width and every stride are a multiple, as addresses are of 16 bytes: what Triton's hints
# tell, so that it loads in vectors, asynchronously. Others would run kernels that load element after element; one of
# those stopped with an illegal address on an H200 (Triton 3.6), though nothing is wrong with its PTX.
UNIT = 16
MAX_ANCHORS = 512
MAX_TOKENS = 2**22
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
SCHEDULES = ("split", "single")
MAX_SINGLE, SHORT = 1024, 512  # tokens of a head that one program takes whole: at most, and for any b·h
FEW = 4  # times the heads, from which so many multiprocessors have `single` run larger programs

# Roles (rows of tiles.TILES) of the second stage, and of the launches when the anchors are blocked.
SECOND = {"forward": "scatter", "backward": "differentiate"}
BLOCKED = {
    "forward": ("denominator", "gather_blocked", "scatter_blocked"),
    "backward": ("denominator", "gather_blocked", "tokens", "anchors"),
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What may be tuned about a pass. A split is part of a head's tokens and the work of one program at a time.

    schedule: `split` (a launch a stage) or `single` (one launch, a program a head);
    tiles: by role, see tiles; splits: of the gather; chunks: of the second stage (single: one of each).
    """

    schedule: str
    tiles: Mapping[str, Tile]
    splits: int
    chunks: int


@dataclass(frozen=True)
class ShapeClass:
    """What decides tiles: shapes of one class share compiled kernels and tuning."""

    d: int
    d_pad: int
    m_pad: int
    bits: int
    phase: str

    @property
    def key(self) -> tuple[int, int, int]:
        """What the tables of tiles go by, beside the role."""
        return self.bits, self.m_pad, self.d_pad

    @property
    def whole(self) -> bool:
        """Whether one program holds all anchors, so that no launch for the denominators is needed."""
        return (SECOND[self.phase], *self.key) in TILES


def shape_class(k: Tensor, anchors: Tensor, phase: str) -> ShapeClass:
    """The class of a problem; phase is `forward` or `backward`."""
    m, d = anchors.shape[-2:]
    return class_of(d=d, m=m, dtype=k.dtype, phase=phase)


def class_of(*, d: int, m: int, dtype: torch.dtype, phase: str) -> ShapeClass:
    """The same from sizes."""
    d_pad, m_pad = max(HEAD_DIMS[0], triton.next_power_of_2(d)), max(16, triton.next_power_of_2(m))
    return ShapeClass(d, d_pad, m_pad, 8 * dtype.itemsize, phase)


def unsupported(k: Tensor, v: Tensor, anchors: Tensor) -> str | None:
    """Why these kernels do not take the tensors, or None."""
    m, d = anchors.shape[-2:]
    reason = limits(n=k.shape[-2], d=d, m=m, dtype=k.dtype)
    if reason:
        return reason
    fitting = anchors.dim() == 2 or (anchors.dim() == 3 and k.dim() == 4 and anchors.shape[0] == k.shape[1])
    if k.dim() != 4 or k.shape != v.shape or k.shape[-1] != d or not fitting:
        shapes = [tuple(t.shape) for t in (k, v, anchors)]
        return f"needs k and v (b, h, n, d) and anchors (m, d) or (h, m, d), not {shapes}"
    if v.dtype != k.dtype:
        return f"needs k and v of one dtype, not {k.dtype} and {v.dtype}"
    return None


def padded(d: int) -> int:
    """The width that heads of width d are given to the kernels with."""
    return -(-d // UNIT) * UNIT


def limits(*, n: int, d: int, m: int, dtype: torch.dtype) -> str | None:
    """Why these kernels do not take a size, or None."""
    if dtype not in DTYPES:
        return f"takes float16, bfloat16 and float32, not {str(dtype).removeprefix('torch.')}"
    if not 1 <= d <= HEAD_DIMS[-1]:
        return f"takes head_dim 1 to {HEAD_DIMS[-1]}, not {d}"
    if not 1 <= m <= MAX_ANCHORS:
        return f"takes 1 to {MAX_ANCHORS} anchors, not {m}"
    if not 1 <= n <= MAX_TOKENS:
        return f"takes 1 to {MAX_TOKENS} tokens, not {n}"
    return None


def not_single(*, n: int, d: int, m: int, dtype: torch.dtype, phase: str) -> str | None:
    """Why a pass of this size would run split although single is asked for, or None."""
    if n > MAX_SINGLE:
        return f"takes a head of up to {MAX_SINGLE} tokens, not {n}; anchor:split takes any"
    if (f"single_{phase}", *class_of(d=d, m=m, dtype=dtype, phase=phase).key) not in TILES:
        size = f"m={m} d={d} in {str(dtype).removeprefix('torch.')}"
        return f"takes 16-bit inputs and m × d that one tile holds, not {size}; anchor:split takes them"
    return None


@cache
def default_choice(
    kind: ShapeClass, *, n: int, m: int, parts: int, device: Device, schedule: str | None = None
) -> Choice:
    """What to run without tuning; parts = b·h; schedule: None for the rule's. One that does not fit becomes `split`."""
    schedule = schedule or rule(n=n, parts=parts, device=device)
    role = f"single_{kind.phase}"
    if schedule == "single" and n <= MAX_SINGLE and (role, *kind.key) in TILES:
        few = FEW * parts <= device.processors and (f"{role}_few", *kind.key) in TILES
        tile = tile_of(f"{role}_few" if few else role, kind, device)
        return Choice(schedule="single", tiles={role: tile}, splits=1, chunks=1)
    if kind.whole:
        gather, second = tile_of("gather", kind, device), tile_of(SECOND[kind.phase], kind, device)
        tiles = {"gather": gather, SECOND[kind.phase]: second}
        least = max(4 * gather.tokens, 8 * kind.m_pad)
        splits = _cut(n, parts, slots=device.processors * gather.resident, least=least)
        chunks = _cut(n, parts, slots=device.processors * second.resident, least=least)
        return Choice(schedule="split", tiles=tiles, splits=splits, chunks=chunks)
    tiles = {role: tile_of(role, kind, device) for role in BLOCKED[kind.phase]}
    gather, anchors = tiles["gather_blocked"], tiles.get("anchors", tiles["gather_blocked"])
    least = 16 * gather.tokens
    splits = _cut(n, parts * -(-m // gather.anchors), slots=device.processors * gather.resident, least=least)
    chunks = _cut(n, parts * -(-m // anchors.anchors), slots=device.processors * anchors.resident, least=least)
    return Choice(schedule="split", tiles=tiles, splits=splits, chunks=chunks)


def rule(*, n: int, parts: int, device: Device) -> str:
    """The schedule of a shape that nobody tuned: `single` where heads are short, or as many as multiprocessors.

    On an H200, bf16, d 64 (docs/performance.md): `single` took 0.71 to 0.92 of split's time at n 198 to 577, forward
    and backward, with 12 to 768 heads; 1.04 of it backward at n 256; and 1.09 and 1.13 at n 1024 with 96 heads for 132
    multiprocessors. From n 577 to 1024 with more heads nobody has measured.
    """
    return "single" if n <= SHORT or (n <= MAX_SINGLE and parts >= device.processors) else "split"


def tile_of(role: str, kind: ShapeClass, device: Device) -> Tile:
    """The table's tile for a role on a device's generation."""
    generation = 90 if device.capability >= 90 else 80
    return TILES[role, kind.bits, kind.m_pad if kind.whole else 0, kind.d_pad][generation]


def span_of(n: int, splits: int, tile: int) -> tuple[int, int]:
    """Tokens a split, whole tiles, and how many splits that makes."""
    span = -(-n // (splits * tile)) * tile
    return span, -(-n // span)


def _cut(n: int, parts: int, *, slots: int, least: int) -> int:
    """Splits a head so that parts · splits programs fill the device's slots evenly; at least `least` tokens each."""
    most, parts = max(1, n // least), max(1, parts)  # an empty batch has no part, and launches nothing
    best, best_filled = 1, 0.0
    for splits in range(1, min(most, max(1, 4 * slots // parts)) + 1):
        waves = -(-parts * splits // slots)
        filled = parts * splits / (waves * slots)
        if filled > best_filled + 0.02:  # more splits write more partial sums: only for a gain
            best, best_filled = splits, filled
        if best_filled >= 0.95:
            break
    return best

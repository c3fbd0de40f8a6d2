"""Which launches compute anchor attention for given tensors on a given device: tiles, splits, workspaces, order.

A plan is data: it can be run (`Plan.run`), compiled ahead of time (attentions.kernels.ahead) or counted, and it can be
made from tensors on "meta" for a device that is not there.

    plan = forward(k, v, anchors, device=H100)      # k, v (b, h, n, d), anchors (m, d)
    [launch.kernel.__name__ for launch in plan.launches]        # ['gather_kernel', 'scatter_kernel']
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from attentions.kernels import anchor_device as device_code
from attentions.kernels.anchor_tiles import TILES, Tile

HEAD_DIMS = (32, 64, 80, 96, 128)  # those with tests and reports; any from 1 to the last is taken
MAX_ANCHORS = 512
MAX_TOKENS = 2**22
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
SCHEDULES = ("split", "persistent")

# Up to this many splits the scatter (and the backward pass) adds them itself; beyond, a launch of its own does it in
# parallel, because every program would read every split.
FEW_SPLITS = 8

# While nobody has measured the persistent schedule on a device, the heuristic does not take it; tuning may.
DEFAULT_SCHEDULE = "split"

# Share of L2 that one group of heads may take with what is read twice. Two groups are in flight, beside streams that
# are read once; and on Hopper and Ampere a line read from both halves of L2 is kept in both.
GROUP_SHARE = 0.2
LARGEST_SHARE = 0.4  # a single head beyond it would be gone before its second reading

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

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
class Choice:
    """What may be tuned about a pass. A split is part of a head's tokens and the work of one program at a time.

    schedule: `split` (a launch a stage) or `persistent` (one launch, the second reading from L2);
    tiles: by role, see anchor_tiles; splits: of the gather; chunks: of the second stage (persistent: the same splits);
    group: heads in flight at once; programs: how many are launched (both persistent only).
    """

    schedule: str
    tiles: Mapping[str, Tile]
    splits: int
    chunks: int
    group: int = 0
    programs: int = 0


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
        if self.programs == 0:
            return
        # Triton 3.9 warns unless fusing multiply and add is asked for or refused; earlier versions fuse.
        self.kernel[(self.programs,)](
            *self.arguments, **self.constants, num_warps=self.warps, num_stages=self.stages, enable_fp_fusion=True
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Launches in order, the tensors that they fill, and the counters that must be zero before each run."""

    launches: tuple[Launch, ...]
    results: tuple[Tensor, Tensor, Tensor]
    workspace_bytes: int
    choice: Choice
    counters: Tensor | None = None

    def run(self) -> tuple[Tensor, Tensor, Tensor]:
        """Enqueue all launches on the current stream of the tensors' own device and return the results.

        Triton launches on the current device, whichever holds the tensors, and PyTorch sets none for an operator
        written in Python.
        """
        with torch.cuda.device_of(self.results[0]):
            if self.counters is not None:
                self.counters.zero_()
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


def shape_class(k: Tensor, anchors: Tensor, phase: str) -> ShapeClass:
    """The class of a problem; phase is `forward` or `backward`."""
    m, d = anchors.shape
    return _class(d, m, 8 * k.element_size(), phase)


def _class(d: int, m: int, bits: int, phase: str) -> ShapeClass:
    return ShapeClass(d, max(HEAD_DIMS[0], triton.next_power_of_2(d)), max(16, triton.next_power_of_2(m)), bits, phase)


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


def sketch(
    *, b: int, h: int, n: int, d: int, m: int, dtype: torch.dtype, phase: str, device: Device,
    schedule: str | None = None,
) -> Plan:  # fmt: skip
    """A forward or backward pass over tensors without memory, untuned, on a device that need not be there.

    schedule: None for the heuristic's; where a persistent one does not fit, the plan's choice says `split`.
    """
    k, anchors = torch.empty(b, h, n, d, dtype=dtype, device="meta"), torch.empty(m, d, device="meta")
    choice = default_choice(
        shape_class(k, anchors, phase), n=n, m=m, parts=b * h, device=device, schedule=schedule or DEFAULT_SCHEDULE
    )
    if phase == "forward":
        return forward(k, k, anchors, device=device, choice=choice)
    means, degree = torch.empty(b * h, m, d, device="meta"), torch.empty(b * h, m, device="meta")
    return backward(k, k, k, anchors, means, degree, device=device, choice=choice)


def why_missing(device: torch.device) -> str | None:
    """Why the kernels cannot run on a device here, or None."""
    if device.type == "cpu":
        return None if INTERPRETED else "needs a CUDA device (on the CPU only Triton's interpreter: TRITON_INTERPRET=1)"
    if device.type != "cuda":
        return f"needs a CUDA device, not {device.type}"
    found = torch.cuda.get_device_properties(device)
    shared = getattr(found, "shared_memory_per_block_optin", 163 * 1024)
    if found.major < 8 or shared < 163 * 1024:
        return (
            f"needs a data-centre GPU from A100 on (163 KiB of shared memory a program), and {found.name} has "
            f"{shared // 1024} KiB at compute capability {found.major}.{found.minor}"
        )
    return None


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


def not_persistent(
    *, n: int, d: int, m: int, dtype: torch.dtype, parts: int, passes: tuple[str, ...], device: Device
) -> str | None:  # fmt: skip
    """Why a pass of this size, b·h = parts, would run split although persistent is asked for, or None."""
    for phase in passes:
        kind = _class(d, m, torch.finfo(dtype).bits, phase)
        choice = default_choice(kind, n=n, m=m, parts=parts, device=device, schedule="persistent")
        if choice.schedule != "persistent":
            return (
                f"takes 16-bit inputs, m × d that one tile holds, and heads whose {phase} pass fits in "
                f"{LARGEST_SHARE:.0%} of L2 ({device.l2_bytes >> 20} MiB here); anchor:split takes n={n} d={d} m={m}"
            )
    return None


def whole(kind: ShapeClass) -> bool:
    """Whether one program holds all anchors, so that no launch for the denominators is needed."""
    return (_SECOND[kind.phase], kind.bits, kind.m_pad, kind.d_pad) in TILES


def flops(*, tokens: int, d: int, m: int, dtype: torch.dtype, phase: str) -> int:
    """What the launches of `forward` or `backward` execute, a multiply-add counted as two; tokens = b·h·n.

    In units of 2·tokens·m·d, whole: gather 2, scatter 2; backward gather 2 and 6 more (logits, dA twice, dV, dK, dU).
    Blocked adds the denominators, and the split of the backward pass into tokens (8) and anchors (4).
    """
    kind = _class(d, m, torch.finfo(dtype).bits, phase)
    units = {("forward", True): 4, ("forward", False): 5, ("backward", True): 8, ("backward", False): 15}
    return 2 * tokens * m * d * units[phase, whole(kind)]


@cache
def default_choice(
    kind: ShapeClass, *, n: int, m: int, parts: int, device: Device, schedule: str = DEFAULT_SCHEDULE
) -> Choice:
    """What to run without tuning; parts = b·h. A persistent schedule that does not fit becomes `split`."""
    if schedule == "persistent":
        choice = _persistent_choice(kind, n=n, m=m, parts=parts, device=device)
        if choice is not None:
            return choice
    if whole(kind):
        gather, second = _tile("gather", kind, device), _tile(_SECOND[kind.phase], kind, device)
        tiles = {"gather": gather, _SECOND[kind.phase]: second}
        least = max(4 * gather.tokens, 8 * kind.m_pad)
        splits = _cut(n, parts, slots=device.processors * gather.resident, least=least)
        chunks = _cut(n, parts, slots=device.processors * second.resident, least=least)
        return Choice(schedule="split", tiles=tiles, splits=splits, chunks=chunks)
    tiles = {role: _tile(role, kind, device) for role in _BLOCKED[kind.phase]}
    gather, anchors = tiles["gather_blocked"], tiles.get("anchors", tiles["gather_blocked"])
    least = 16 * gather.tokens
    splits = _cut(n, parts * -(-m // gather.anchors), slots=device.processors * gather.resident, least=least)
    chunks = _cut(n, parts * -(-m // anchors.anchors), slots=device.processors * anchors.resident, least=least)
    return Choice(schedule="split", tiles=tiles, splits=splits, chunks=chunks)


def forward(
    k: Tensor, v: Tensor, anchors: Tensor, *,
    out: Tensor | None = None, device: Device | None = None, choice: Choice | None = None, precision: str = "ieee",
) -> Plan:  # fmt: skip
    """Plan O. Results: out (b, h, n, d) in k's dtype, means W (b·h, m, d) and degree (b·h, m) in float32.

    out: where to write, any strides with a contiguous last dimension; by default laid out as k is.
    precision: of float32 products: `ieee`, `tf32` or `tf32x3`.
    """
    b, h, n, d = k.shape
    m, parts = anchors.shape[0], b * h
    kind = shape_class(k, anchors, "forward")
    device = device or device_of(k.device)
    choice = choice or default_choice(kind, n=n, m=m, parts=parts, device=device)
    out = output_like(k) if out is None else out
    means, degree = _floats(k, parts, m, d), _floats(k, parts, m)
    scale = math.log2(math.e) / math.sqrt(d)
    make = _Launcher(kind, n, m, precision, device)

    if choice.schedule == "persistent":
        rows, wide = _reduction(kind)
        slices, tile = -(-m // rows), choice.tiles["persistent_forward"]
        span, splits = _span(n, choice.splits, tile.tokens)
        ring = 2 * choice.group * splits
        partial, partial_degree = _floats(k, ring, m, d), _floats(k, ring, m)
        counters = torch.empty(1 + 2 * parts, dtype=torch.int32, device=k.device)
        launch = make(
            device_code.persistent_forward_kernel, tile, choice.programs,
            (k, v, anchors, partial, partial_degree, means, degree, out, counters, scale, n, m, h, parts,
             choice.group, splits, slices, span, _tickets(parts, choice.group, splits, slices),
             *_strides(k, v, out)),
            ROWS=rows, WIDE=wide, WGMMA=make.wgmma,
        )  # fmt: skip
        return _plan((launch,), (out, means, degree), (partial, partial_degree, counters), choice, counters)

    launches, held = [], []
    gather = choice.tiles["gather" if whole(kind) else "gather_blocked"]
    span, splits = _span(n, choice.splits, gather.tokens)
    partial, partial_degree = _floats(k, parts * splits, m, d), _floats(k, parts * splits, m)
    held += [partial, partial_degree]
    lse = k
    if not whole(kind):
        lse = _floats(k, parts, n)
        held.append(lse)
        launches.append(_denominators(make, k, anchors, lse, scale, choice))
    launches.append(
        _gather(make, gather, (k, v, anchors, lse, partial, partial_degree), scale, parts, splits, span, degree=True)
    )
    reduced = splits > FEW_SPLITS or not whole(kind)
    if reduced:
        rows, wide = _reduction(kind)
        launches.append(
            Launch(
                device_code.means_kernel,
                parts * -(-m // rows),
                (partial, partial_degree, means, degree, splits, m),
                {"ROWS": rows, "WIDE": wide, "D": d, "D_PAD": kind.d_pad},
                4,
                2,
            )
        )
    if whole(kind):
        tile = choice.tiles["scatter"]
        span, chunks = _span(n, choice.chunks, tile.tokens)
        launches.append(
            make(
                device_code.scatter_kernel,
                tile,
                parts * chunks,
                (
                    k,
                    anchors,
                    partial,
                    partial_degree,
                    means,
                    degree,
                    out,
                    scale,
                    n,
                    m,
                    h,
                    parts,
                    splits,
                    chunks,
                    span,
                    *_strides(k, out),
                ),
                REDUCED=reduced,
            )
        )
    else:
        tile = choice.tiles["scatter_blocked"]
        launches.append(
            make(
                device_code.scatter_blocked_kernel,
                tile,
                parts * -(-n // tile.tokens),
                (k, anchors, means, lse, out, scale, n, m, h, *_strides(k, out)),
            )
        )
    return _plan(tuple(launches), (out, means, degree), held, choice)


def backward(
    g: Tensor, k: Tensor, v: Tensor, anchors: Tensor, means: Tensor, degree: Tensor, *,
    grad_k: Tensor | None = None, grad_v: Tensor | None = None,
    device: Device | None = None, choice: Choice | None = None, precision: str = "ieee",
) -> Plan:  # fmt: skip
    """Plan the gradients. Results: grad_k, grad_v (b, h, n, d) in k's dtype, grad_anchors (m, d) in the anchors'.

    g: ∂L/∂O, (b, h, n, d); means and degree as `forward` gave them; grad_k, grad_v: where to write.
    """
    b, h, n, d = k.shape
    m, parts = anchors.shape[0], b * h
    kind = shape_class(k, anchors, "backward")
    device = device or device_of(k.device)
    choice = choice or default_choice(kind, n=n, m=m, parts=parts, device=device)
    grad_k = output_like(k) if grad_k is None else grad_k
    grad_v = output_like(v) if grad_v is None else grad_v
    grad_anchors = allocate((m, d), dtype=anchors.dtype, device=k.device)
    grad_sums, grad_degree = _floats(k, parts, m, d), _floats(k, parts, m)
    root = 1 / math.sqrt(d)
    scale = math.log2(math.e) * root
    make = _Launcher(kind, n, m, precision, device)
    rows, wide = _reduction(kind)
    results = (grad_k, grad_v, grad_anchors)
    strides = _strides(k, v, g, grad_k, grad_v)

    if choice.schedule == "persistent":
        slices, tile = -(-m // rows), choice.tiles["persistent_backward"]
        span, splits = _span(n, choice.splits, tile.tokens)
        places = choice.group * splits
        partial, grad_partial = _floats(k, 2 * places, m, d), _floats(k, places, m, d)
        counters = torch.empty(1 + 2 * parts + places, dtype=torch.int32, device=k.device)
        launch = make(
            device_code.persistent_backward_kernel, tile, choice.programs,
            (k, v, g, anchors, means, degree, partial, grad_sums, grad_degree, grad_k, grad_v, grad_partial, counters,
             scale, root, n, m, h, parts, choice.group, splits, slices, span,
             _tickets(parts, choice.group, splits, slices), *strides),
            ROWS=rows, WIDE=wide, WGMMA=make.wgmma,
        )  # fmt: skip
        launches = (launch, _anchor_gradient(grad_partial, grad_anchors, places))
        return _plan(launches, results, (grad_sums, grad_degree, partial, grad_partial, counters), choice, counters)

    launches = []
    gather = choice.tiles["gather" if whole(kind) else "gather_blocked"]
    span, splits = _span(n, choice.splits, gather.tokens)
    partial = _floats(k, parts * splits, m, d)
    held = [grad_sums, grad_degree, partial]
    lse = k
    if not whole(kind):
        lse = _floats(k, parts, n)
        held.append(lse)
        launches.append(_denominators(make, k, anchors, lse, scale, choice))
    launches.append(_gather(make, gather, (k, g, anchors, lse, partial, partial), scale, parts, splits, span))
    reduced = splits > FEW_SPLITS or not whole(kind)
    if reduced:
        launches.append(
            Launch(
                device_code.mean_gradients_kernel,
                parts * -(-m // rows),
                (partial, means, degree, grad_sums, grad_degree, splits, m),
                {"ROWS": rows, "WIDE": wide, "D": d, "D_PAD": kind.d_pad},
                4,
                2,
            )
        )
    if whole(kind):
        tile = choice.tiles["differentiate"]
        span, chunks = _span(n, choice.chunks, tile.tokens)
        grad_partial = _floats(k, parts * chunks, m, d)
        launches.append(
            make(
                device_code.backward_kernel,
                tile,
                parts * chunks,
                (
                    k,
                    v,
                    g,
                    anchors,
                    means,
                    degree,
                    partial,
                    grad_sums,
                    grad_degree,
                    grad_k,
                    grad_v,
                    grad_partial,
                    scale,
                    root,
                    n,
                    m,
                    h,
                    splits,
                    chunks,
                    span,
                    *strides,
                ),
                REDUCED=reduced,
                WGMMA=make.wgmma,
            )
        )
    else:
        balance, tile = _floats(k, parts, n), choice.tiles["tokens"]
        held.append(balance)
        launches.append(
            make(
                device_code.backward_tokens_kernel,
                tile,
                parts * -(-n // tile.tokens),
                (
                    k,
                    v,
                    g,
                    anchors,
                    means,
                    grad_sums,
                    grad_degree,
                    lse,
                    balance,
                    grad_k,
                    grad_v,
                    scale,
                    root,
                    n,
                    m,
                    h,
                    *strides,
                ),
            )
        )
        tile = choice.tiles["anchors"]
        span, chunks = _span(n, choice.chunks, tile.tokens)
        grad_partial = _floats(k, parts * chunks, m, d)
        launches.append(
            make(
                device_code.backward_anchors_kernel,
                tile,
                parts * chunks * -(-m // tile.anchors),
                (
                    k,
                    v,
                    g,
                    anchors,
                    means,
                    grad_sums,
                    grad_degree,
                    lse,
                    balance,
                    grad_partial,
                    scale,
                    root,
                    n,
                    m,
                    h,
                    chunks,
                    span,
                    *_strides(k, v, g),
                ),
            )
        )
    held.append(grad_partial)
    launches.append(_anchor_gradient(grad_partial, grad_anchors, parts * chunks))
    return _plan(tuple(launches), results, held, choice)


def output_like(k: Tensor) -> Tensor:
    """An empty (b, h, n, d) tensor laid out as `k` is: token-major (b, n, h, d) in memory if k's heads lie inside its
    tokens, so that a layer's reshape to (b, n, h·d) copies nothing."""
    b, h, n, d = k.shape
    if k.stride(1) < k.stride(2):
        return allocate((b, n, h, d), dtype=k.dtype, device=k.device).transpose(1, 2)
    return allocate((b, h, n, d), dtype=k.dtype, device=k.device)


# Roles (rows of anchor_tiles.TILES) of the second stage, and of the launches when the anchors are blocked.
_SECOND = {"forward": "scatter", "backward": "differentiate"}
_BLOCKED = {
    "forward": ("denominator", "gather_blocked", "scatter_blocked"),
    "backward": ("denominator", "gather_blocked", "tokens", "anchors"),
}


class _Launcher:
    """Builds launches with the constants that all of a pass share."""

    def __init__(self, kind: ShapeClass, n: int, m: int, precision: str, device: Device) -> None:
        self.kind, self.n, self.m = kind, n, m
        self.wgmma = device.capability == 90
        self.precision = "interpreted" if INTERPRETED else precision

    def __call__(
        self, kernel: Any, tile: Tile, programs: int, arguments: tuple[Any, ...], **constants: Any
    ) -> Launch:  # fmt: skip
        anchors = tile.anchors or self.kind.m_pad
        shared = {
            "BLOCK_N": tile.tokens, "BLOCK_M": anchors, "D": self.kind.d, "D_PAD": self.kind.d_pad,
            "EVEN": self.n % tile.tokens == 0, "PADDED": self.m % anchors != 0, "PRECISION": self.precision,
        }  # fmt: skip
        return Launch(kernel, programs, arguments, shared | constants, tile.warps, tile.stages)


def _denominators(
    make: _Launcher, k: Tensor, anchors: Tensor, lse: Tensor, scale: float, choice: Choice
) -> Launch:  # fmt: skip
    tile = choice.tiles["denominator"]
    b, h, n, _ = k.shape
    return make(
        device_code.denominator_kernel, tile, b * h * -(-n // tile.tokens),
        (k, anchors, lse, scale, n, anchors.shape[0], h, *_strides(k)),
    )  # fmt: skip


def _gather(
    make: _Launcher, tile: Tile, tensors: tuple[Tensor, ...], scale: float, parts: int, splits: int, span: int, *,
    degree: bool = False,
) -> Launch:  # fmt: skip
    k, v, anchors = tensors[:3]
    _, h, n, _ = k.shape
    m, blocked = anchors.shape[0], not whole(make.kind)
    blocks = -(-m // tile.anchors) if blocked else 1
    return make(
        device_code.gather_kernel, tile, parts * splits * blocks,
        (*tensors, scale, n, m, h, splits, span, *_strides(k, v)), BLOCKED=blocked, DEGREE=degree, WGMMA=make.wgmma,
    )  # fmt: skip


def _anchor_gradient(partial: Tensor, grad_anchors: Tensor, parts: int) -> Launch:
    size = grad_anchors.numel()
    # Where there are few elements, narrow and deep: there are hundreds of matrices, and a step waits for memory once.
    block, wide = (32, 64) if size <= 8192 else (256, 32)
    return Launch(
        device_code.anchor_gradient_kernel, -(-size // block), (partial, grad_anchors, parts, size),
        {"BLOCK": block, "WIDE": wide}, 4, 2,
    )  # fmt: skip


def _persistent_choice(kind: ShapeClass, *, n: int, m: int, parts: int, device: Device) -> Choice | None:
    role = f"persistent_{kind.phase}"
    if (role, kind.bits, kind.m_pad, kind.d_pad) not in TILES:
        return None
    tile = _tile(role, kind, device)
    read_twice = n * kind.d * (kind.bits // 8) * (2 if kind.phase == "backward" else 1)
    if read_twice > LARGEST_SHARE * device.l2_bytes:
        return None
    group = max(1, min(parts, int(GROUP_SHARE * device.l2_bytes / read_twice)))
    programs = device.processors * tile.resident
    # A group's items number half the programs or more: the tickets in hand then span less than a step, so that what
    # an item waits for was begun a step ago. Fewer, longer items would wait; more would write more partial sums.
    span = max(2 * tile.tokens, 4 * kind.m_pad, -(-2 * group * n // programs))
    splits = max(1, n // span)
    return Choice(
        schedule="persistent", tiles={role: tile}, splits=splits, chunks=splits, group=group, programs=programs
    )


def _cut(n: int, parts: int, *, slots: int, least: int) -> int:
    """Splits a head so that parts · splits programs fill the device's slots evenly; at least `least` tokens each."""
    most = max(1, n // least)
    best, best_filled = 1, 0.0
    for splits in range(1, min(most, max(1, 4 * slots // parts)) + 1):
        waves = -(-parts * splits // slots)
        filled = parts * splits / (waves * slots)
        if filled > best_filled + 0.02:  # more splits write more partial sums: only for a gain
            best, best_filled = splits, filled
        if best_filled >= 0.95:
            break
    return best


def _span(n: int, splits: int, tile: int) -> tuple[int, int]:
    """Tokens a split, whole tiles, and how many splits that makes."""
    span = -(-n // (splits * tile)) * tile
    return span, -(-n // span)


def _tickets(parts: int, group: int, splits: int, slices: int) -> int:
    return (-(-parts // group) + 1) * group * (2 * splits + slices)


def _reduction(kind: ShapeClass) -> tuple[int, int]:
    """Anchors and splits of one tile of a reduction: 2048 to 4096 numbers."""
    return min(max(4, 256 // kind.d_pad, kind.m_pad // 8), 512 // kind.d_pad), 8


def _tile(role: str, kind: ShapeClass, device: Device) -> Tile:
    generation = 90 if device.capability >= 90 else 80
    return TILES[role, kind.bits, kind.m_pad if whole(kind) else 0, kind.d_pad][generation]


def _strides(*tensors: Tensor) -> tuple[int, ...]:
    return tuple(stride for tensor in tensors for stride in tensor.stride()[:3])


def _floats(like: Tensor, *shape: int) -> Tensor:
    return allocate(shape, dtype=torch.float32, device=like.device)


def _plan(launches: Any, results: Any, held: Any, choice: Choice, counters: Tensor | None = None) -> Plan:
    size = sum(tensor.numel() * tensor.element_size() for tensor in held)
    return Plan(launches=launches, results=results, workspace_bytes=size, choice=choice, counters=counters)

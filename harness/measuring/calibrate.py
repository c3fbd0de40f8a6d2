"""What this device can do, measured: copy bandwidth and matrix rate (the ceilings), and the canary. Imports torch.

ceilings("cpu", ["float32"])    # {"copy_gb_per_s": 21.3, "matmul_tflops": {"float32": 0.11}}
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch

from harness.machine import environment
from harness.machine.nvml import NoGpu
from harness.machine.quiet import Gpu
from harness.measuring.cuda import CudaDevice
from harness.measuring.held import HostIsLate, Stopwatch

REPEATS = 7
SPEND_S = 0.5
CANARY_S, FEWEST_LOOKS = 0.012, 3
SIZES = {"cpu": (256, 512, 1024), "cuda": (1024, 2048, 4096, 8192)}
MOST_CALLS = 200
Pick = Callable[[list[float]], float]
SMALLEST, MOST_S = 128, 1.0  # size of the first matrices tried; seconds that one product may take


def ceilings(device: str, dtypes: Sequence[str]) -> dict[str, Any]:
    """Copy bandwidth in GB/s, bytes read and written counted, and matrix-product rate in TFLOP/s for each dtype.

    matmul_size: of the square matrices, where a dtype without arithmetic of its own made them smaller.
    """
    place = torch.device(device)
    cuda = place.type == "cuda"
    found: dict[str, Any] = {"copy_gb_per_s": _copy(place, 1 << 30 if cuda else 1 << 28), "matmul_tflops": {}}
    for name in dtypes:
        rate, size = _product(place, 8192 if cuda else 2048, getattr(torch, name))
        found["matmul_tflops"][name] = rate
        if size != (8192 if cuda else 2048):
            found.setdefault("matmul_size", {})[name] = size
    return found


def highest_copy(device: str) -> float:
    """The best of many copies in GB/s: what an undisturbed moment allows."""
    place = torch.device(device)
    return _copy(place, 1 << 30 if place.type == "cuda" else 1 << 28, pick=min)


def highest_product(device: str, dtype: str, *, tensor_float: bool = False) -> float:
    """The best of many products of several sizes in TFLOP/s: short ones slip between the neighbours of a busy machine.

    tensor_float: let float32 go through TF32, as a call may and an ordinary product does not.
    """
    place = torch.device(device)
    best = 0.0
    with _tensor_float(tensor_float):
        for size in SIZES[place.type]:
            left, right = (torch.randn(size, size, device=place).to(getattr(torch, dtype)) for _ in range(2))
            multiply = partial(torch.mm, left, right, out=torch.empty_like(left))
            once = _median_seconds(multiply, place, calls=1)
            best = max(best, 2 * size**3 / once / 1e12)
            if once > MOST_S / 8:
                break
            calls = max(1, min(MOST_CALLS, int(SPEND_S / len(SIZES[place.type]) / once)))
            best = max(best, 2 * size**3 / _median_seconds(multiply, place, calls=calls, pick=min) / 1e12)
    return best


def canary(device: str) -> float:
    """Milliseconds of a fixed float32 matrix product on all threads: it tells what others leave of the machine.

    The mean over CANARY_S, not a median: a neighbour takes a few milliseconds now and then, which a median leaves out.
    """
    samples = [canary_sample(device)]  # not counted: caches and threads are cold
    begun = time.perf_counter()
    while len(samples) <= FEWEST_LOOKS or time.perf_counter() - begun < CANARY_S:
        samples.append(canary_sample(device))
    return statistics.fmean(samples[1:])


def canary_sample(device: str) -> float:
    """Milliseconds of one call of the canary's matrix product."""
    left, right, out = _canary_matrices(device)
    return 1e3 * _seconds(lambda: torch.mm(left, right, out=out), torch.device(device))


def gpu(device: str) -> Gpu | None:
    """Who holds the GPU, its clock and throttle mask now; None where NVML is mute."""
    try:
        with environment.open_gpu(device) as found:
            now, holders = found.now(), found.processes()
    except NoGpu:
        return None
    return Gpu(
        processes=None if holders is None else len(holders), sm_mhz=now["sm_mhz"], throttle_mask=now["throttle_mask"]
    )  # fmt: skip


def _copy(device: torch.device, size: int, *, pick: Pick = statistics.median) -> float:
    source = torch.randn(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _median_seconds(lambda: target.copy_(source), device, pick=pick) / 1e9


def _product(device: torch.device, most: int, dtype: torch.dtype) -> tuple[float, int]:
    """The rate in TFLOP/s of a product of square matrices, and their size: `most`, or one that takes MOST_S at most.

    float16 on a CPU without arithmetic for it is a thousand times slower than float32: 2048 would take minutes.
    """
    size = SMALLEST
    while True:
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(left)
        multiply = partial(torch.mm, left, right, out=out)
        if size == most or 8 * _median_seconds(multiply, device, calls=1) > MOST_S:
            return 2 * size**3 / _median_seconds(multiply, device) / 1e12, size
        size = min(2 * size, most)


@contextmanager
def _tensor_float(allowed: bool) -> Iterator[None]:
    """Let float32 products of a GPU go by way of TF32, where that is allowed."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = before or allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@cache
def _canary_matrices(device: str) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    size = 4096 if device.startswith("cuda") else 768
    return tuple(torch.randn(size, size, generator=generator).to(device) for _ in range(3))


def _median_seconds(
    call: Callable[[], object], device: torch.device, *, calls: int = REPEATS, pick: Pick = statistics.median
) -> float:
    """Median, or what `pick` takes, of up to `calls` calls after a warm-up, within SPEND_S; each taken alone."""
    times: list[float] = []
    begun = time.perf_counter()
    for _ in range(calls + 1):
        times.append(_seconds(call, device))
        if len(times) > 2 and time.perf_counter() - begun > SPEND_S:
            break
    return pick(times[1:])


@dataclass(frozen=True)
class _Operator:
    """One operator as a call of harness.measuring.held."""

    function: Callable[[], object]

    def prepare(self) -> None:
        return None

    def run(self, state: None) -> object:
        return self.function()


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call: on CUDA the device's own, as a latency is; the wall clock's where the host is in trouble."""
    if device.type == "cuda":
        watch = Stopwatch(_Operator(call), CudaDevice.of(device))
        try:
            return watch.sample(1)[0] / 1e3
        except HostIsLate as late:
            watch.use_wall_clock(str(late))
            return watch.sample(1)[0] / 1e3
    started = time.perf_counter()
    call()
    return time.perf_counter() - started

"""What this device can do, measured: copy bandwidth and matrix rate (the ceilings), and the canary. Imports torch.

ceilings("cpu", ["float32"])    # {"copy_gb_per_s": 21.3, "matmul_tflops": {"float32": 0.11}}
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from harness.measuring.cuda import CudaDevice
from harness.measuring.held import HostIsLate, Stopwatch

REPEATS = 7
SPEND_S = 0.5


def ceilings(device: str, dtypes: Sequence[str]) -> dict[str, Any]:
    """Copy bandwidth in GB/s, bytes read and written counted, and matrix-product rate in TFLOP/s for each dtype."""
    place = torch.device(device)
    cuda = place.type == "cuda"
    found: dict[str, Any] = {"copy_gb_per_s": _copy(place, 1 << 30 if cuda else 1 << 28), "matmul_tflops": {}}
    for name in dtypes:
        found["matmul_tflops"][name] = _product(place, 8192 if cuda else 2048, getattr(torch, name))
    return found


def canary(device: str) -> float:
    """Milliseconds of a fixed float32 matrix product, the median of a few: it tells whether the machine drifts."""
    left, right, out = _canary_matrices(device)
    return 1e3 * _median_seconds(lambda: torch.mm(left, right, out=out), torch.device(device))


def canary_sample(device: str) -> float:
    """Milliseconds of one call of the canary's matrix product."""
    left, right, out = _canary_matrices(device)
    return 1e3 * _seconds(lambda: torch.mm(left, right, out=out), torch.device(device))


def _copy(device: torch.device, size: int) -> float:
    source = torch.randn(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _median_seconds(lambda: target.copy_(source), device) / 1e9


def _product(device: torch.device, size: int, dtype: torch.dtype) -> float:
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    return 2 * size**3 / _median_seconds(lambda: torch.mm(left, right, out=out), device) / 1e12


@cache
def _canary_matrices(device: str) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    size = 4096 if device.startswith("cuda") else 768
    return tuple(torch.randn(size, size, generator=generator).to(device) for _ in range(3))


def _median_seconds(call: Callable[[], object], device: torch.device) -> float:
    """Median of up to REPEATS calls after a warm-up, within SPEND_S; each taken alone."""
    times: list[float] = []
    begun = time.perf_counter()
    for _ in range(REPEATS + 1):
        times.append(_seconds(call, device))
        if len(times) > 2 and time.perf_counter() - begun > SPEND_S:
            break
    return statistics.median(times[1:])


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

"""What this device can do, measured: copy bandwidth and matrix rate (the ceilings), and the canary. Imports torch.

ceilings("cpu", ["float32"])    # {"copy_gb_per_s": 21.3, "matmul_tflops": {"float32": 0.11}}
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

from harness.machine import environment
from harness.machine.nvml import NoGpu

REPEATS = 7
SPEND_S = 0.5
CANARY_S, FEWEST_LOOKS = 0.012, 3


def ceilings(device: str, dtypes: Sequence[str]) -> dict[str, Any]:
    """Copy bandwidth in GB/s, bytes read and written counted, and matrix-product rate in TFLOP/s for each dtype."""
    place = torch.device(device)
    cuda = place.type == "cuda"
    found: dict[str, Any] = {"copy_gb_per_s": _copy(place, 1 << 30 if cuda else 1 << 28), "matmul_tflops": {}}
    for name in dtypes:
        found["matmul_tflops"][name] = _product(place, 8192 if cuda else 2048, getattr(torch, name))
    return found


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
    _wait(torch.device(device))
    started = time.perf_counter_ns()
    torch.mm(left, right, out=out)
    _wait(torch.device(device))
    return (time.perf_counter_ns() - started) / 1e6


def gpu(device: str) -> dict[str, Any] | None:
    """The fields of quiet.Gpu: who holds the GPU, its clock and throttle mask now; None where NVML is mute."""
    try:
        with environment.open_gpu(device) as found:
            now, holders = found.now(), found.processes()
    except NoGpu:
        return None
    processes = None if holders is None else len(holders)
    return {"processes": processes, "sm_mhz": now["sm_mhz"], "throttle_mask": now["throttle_mask"]}


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
    """Median of up to REPEATS calls after a warm-up, within SPEND_S; the device is waited for each time."""
    times: list[float] = []
    begun = time.perf_counter()
    for _ in range(REPEATS + 1):
        _wait(device)
        started = time.perf_counter()
        call()
        _wait(device)
        times.append(time.perf_counter() - started)
        if len(times) > 2 and time.perf_counter() - begun > SPEND_S:
            break
    return statistics.median(times[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

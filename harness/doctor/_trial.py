"""The trial: one fixed matrix product timed again and again, and what its steadiness says of the effects to be seen."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from harness import stats, system
from harness.doctor import Place, Snapshot
from harness.nvml import NoGpu

CPU_SIZE, GPU_SIZE = 512, 4096
WARM_UP = 0.2  # seconds; a cold core takes tens of milliseconds to reach its clock, a GPU a little more
BLOCKS = 10  # of a trial; the median of a block stands for the measurement of one case
FLOOR = math.sqrt(2) * 0.01  # two medians, each known to 1 %: what a run's stopping rule gives at best
POWER = (1.96 + 0.84) * math.sqrt(2)  # standard deviations: 5 % false alarms, 80 % found, a difference of two cases


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What the samples say. spread, half_width, drift, noise and effect are fractions of the median.

    spread: p80/p20 − 1. drift: the second half's median over the first half's, minus 1. noise: standard deviation of
    the logarithms of the blocks' medians. effect: the smallest to be told apart, max(floor, exp(POWER·noise) − 1,
    |drift|).
    """

    product: str
    samples: int
    median_ms: float
    half_width: float
    spread: float
    drift: float
    noise: float
    effect: float
    floor: float = FLOOR

    @classmethod
    def of(cls, samples_ms: Sequence[float], product: str) -> Trial:
        """The trial of at least 4 positive samples, in the order in which they were taken. Raises ValueError."""
        values = stats.finite(samples_ms)
        if len(values) < 4 or np.any(values <= 0):
            raise ValueError(f"{len(values)} samples; a trial needs at least 4, all positive")
        summary = stats.summarise(values)
        first, second = np.array_split(values, 2)
        drift = float(np.median(second) / np.median(first) - 1)
        blocks = np.array_split(values, min(BLOCKS, len(values) // 2))
        noise = float(np.std([math.log(np.median(block)) for block in blocks], ddof=1))
        return cls(
            product=product, samples=summary.samples, median_ms=summary.median, half_width=summary.half_width,
            spread=summary.p80 / summary.p20 - 1, drift=drift, noise=noise,
            effect=max(FLOOR, math.expm1(POWER * noise), abs(drift)),
        )  # fmt: skip


def attend(device: str, *, seconds: float, root: Path, results: Path, nvml: Any) -> Place:
    """Make the trial on the device, between two snapshots of the kernel's counters, and gather what the probes need."""
    import torch

    cores = frozenset(system.affinity())
    load = system.load(root)  # before the trial adds to it
    gpu: Mapping[str, Any] | None = None
    idle: Mapping[str, Any] = {}
    busy: list[Mapping[str, Any]] = []
    trial, no_trial, no_gpu = None, "", f"the device is {device}"
    with ExitStack() as stack:
        open_gpu = None
        if device != "cpu":
            from harness.environment import open_gpu as opened

            try:
                open_gpu = stack.enter_context(opened(device, nvml))
                others = open_gpu.processes()
                gpu = open_gpu.settings() | {"memory_errors": open_gpu.memory_errors(), "processes": others}
                idle = open_gpu.now()
            except NoGpu as error:
                no_gpu = str(error)
        watch = (lambda: busy.append(open_gpu.now())) if open_gpu is not None else (lambda: None)
        before = Snapshot.take(root, cores)
        try:
            trial = Trial.of(*(_on_cpu(seconds) if device == "cpu" else _on_gpu(device, seconds, watch)))
        except Exception as error:
            no_trial = f"the trial failed: {type(error).__name__}: {error}"
        after = Snapshot.take(root, cores)
    return Place(
        root=root, device=device, cores=cores, threads=torch.get_num_threads(), environ=os.environ, results=results,
        load=load, before=before, after=after, trial=trial, no_trial=no_trial, torch_version=str(torch.__version__),
        torch_cuda=torch.version.cuda, gpu=gpu, gpu_idle=idle, gpu_busy=tuple(busy), no_gpu=no_gpu,
    )  # fmt: skip


def _on_cpu(seconds: float) -> tuple[list[float], str]:
    import torch

    with torch.inference_mode():
        left, right = (torch.rand(CPU_SIZE, CPU_SIZE) for _ in range(2))
        out = torch.empty(CPU_SIZE, CPU_SIZE)
        warm = time.perf_counter() + min(WARM_UP, seconds)
        while time.perf_counter() < warm:
            torch.mm(left, right, out=out)
        samples: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(samples) < 4:
            start = time.perf_counter_ns()
            torch.mm(left, right, out=out)
            samples.append((time.perf_counter_ns() - start) / 1e6)
    return samples, f"{CPU_SIZE}x{CPU_SIZE}x{CPU_SIZE} float32, {torch.get_num_threads()} threads"


def _on_gpu(device: str, seconds: float, watch: Callable[[], None]) -> tuple[list[float], str]:
    """Batches of products between CUDA events; `watch` runs while a batch is under way, so it sees a busy GPU."""
    import torch

    dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    with torch.inference_mode(), torch.cuda.device(device):
        left, right = (torch.rand(GPU_SIZE, GPU_SIZE, device=device, dtype=dtype) for _ in range(2))
        out = torch.empty_like(left)
        torch.mm(left, right, out=out)
        torch.cuda.synchronize()
        warm, products = time.perf_counter() + min(WARM_UP, seconds), 0
        start = time.perf_counter()
        while time.perf_counter() < warm:
            torch.mm(left, right, out=out)
            torch.cuda.synchronize()
            products += 1
        batch = max(2, min(500, int(0.1 * products / (time.perf_counter() - start))))  # a batch takes about 0.1 s
        samples: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(samples) < 4:
            events = [torch.cuda.Event(enable_timing=True) for _ in range(batch + 1)]
            events[0].record()
            for event in events[1:]:
                torch.mm(left, right, out=out)
                event.record()
            watch()
            torch.cuda.synchronize()
            samples += [a.elapsed_time(b) for a, b in pairwise(events)]
    return samples, f"{GPU_SIZE}x{GPU_SIZE}x{GPU_SIZE} {str(dtype).removeprefix('torch.')}"

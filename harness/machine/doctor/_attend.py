"""A place looked at while a fixed matrix product is timed there again and again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.machine import system
from harness.machine.doctor._place import Place, Snapshot
from harness.machine.doctor._trial import Trial
from harness.machine.nvml import NoGpu

CPU_SIZE, GPU_SIZE = 512, 4096
WARM_UP = 0.2  # seconds; a cold core takes tens of milliseconds to reach its clock, a GPU a little more


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
            from harness.machine.environment import open_gpu as opened

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

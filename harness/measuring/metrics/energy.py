"""energy (J): joules per call from NVML's total-energy counter over a window of at least one second.

Everything the GPU draws in the window counts, idle power included. Without NVML or its counter: unsupported.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from harness.measuring.metrics import Settings
from harness.measuring.subject import Subject
from harness.store.record import Reading

PROVIDES = ("energy",)
NEEDS = ("latency",)

WINDOW_S = 1.0


def measure(subject: Subject, readings: dict[str, Reading], settings: Settings) -> Iterator[Reading]:
    """Call for a second between two readings of the counter."""
    if subject.device.type != "cuda":
        yield Reading(metric="energy", status="unsupported", note="no energy counter: NVML covers NVIDIA GPUs only")
        return
    try:
        counter = _counter(subject.device)
        millijoules = counter()
    except Exception as error:
        note = f"NVML gives no total energy here ({error}); it needs nvidia-ml-py: pip install 'attention-harness[gpu]'"
        yield Reading(metric="energy", status="unsupported", note=note)
        return
    subject.synchronise()
    chunk = max(1, int(0.05e3 / (readings["latency"].value or 1)))
    calls, started, millijoules = 0, time.perf_counter(), counter()
    while time.perf_counter() - started < WINDOW_S:
        for _ in range(chunk):
            subject.call()
        subject.synchronise()
        calls += chunk
    spent = counter() - millijoules
    seconds = time.perf_counter() - started
    note = f"{calls} calls in {seconds:.2f} s, {spent / 1e3 / seconds:.0f} W on average, idle power included"
    yield Reading(metric="energy", value=spent / 1e3 / calls, samples=1, note=note)


def _counter(device: torch.device) -> Any:
    import pynvml

    pynvml.nvmlInit()
    properties = torch.cuda.get_device_properties(device)
    handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)

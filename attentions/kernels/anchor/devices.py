"""What planning needs to know of a device, and whether the kernels run on it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
LEAST_SHARED = 163 * 1024  # bytes of shared memory that the largest tiles take


@dataclass(frozen=True)
class Device:
    """Multiprocessors, and compute capability × 10."""

    name: str
    processors: int
    capability: int


H100 = Device("NVIDIA H100 80GB HBM3", 132, 90)
A100 = Device("NVIDIA A100-SXM4-80GB", 108, 80)
INTERPRETER = Device("interpreter", 4, 90)


@cache
def device_of(device: torch.device) -> Device:
    """The device as a plan sees it; a small made-up one for the CPU, where only the interpreter runs."""
    if device.type != "cuda":
        return INTERPRETER
    found = torch.cuda.get_device_properties(device)
    return Device(found.name, found.multi_processor_count, 10 * found.major + found.minor)


def why_missing(device: torch.device) -> str | None:
    """Why the kernels cannot run on a device here, or None."""
    if device.type == "cpu":
        return None if INTERPRETED else "needs a CUDA device (on the CPU only Triton's interpreter: TRITON_INTERPRET=1)"
    if device.type != "cuda":
        return f"needs a CUDA device, not {device.type}"
    found = torch.cuda.get_device_properties(device)
    shared = getattr(found, "shared_memory_per_block_optin", LEAST_SHARED)
    if found.major < 8 or shared < LEAST_SHARED:
        return (
            f"needs a data-centre GPU from A100 on (163 KiB of shared memory a program), and {found.name} has "
            f"{shared // 1024} KiB at compute capability {found.major}.{found.minor}"
        )
    return None

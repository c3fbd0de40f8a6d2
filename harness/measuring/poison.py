"""Free memory filled with what no result can be made of, so that what a call does not write cannot pass for its result.

with poisoned(device):
    out = module(*inputs)          # an element that it leaves out is huge or not a number, whatever lay there before

CUDA: the caching allocator's free blocks are filled with bytes 0xFF, which every float format reads as not a number.
CPU with glibc: malloc fills what it hands out with bytes 0x7F (M_PERTURB), 3.4e38 in float32. Elsewhere PyTorch fills
what torch.empty makes, in its deterministic mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from harness.machine import allocator

M_PERTURB = -6
FREED = 0x80  # what free leaves; malloc fills with its complement


@contextmanager
def poisoned(device: torch.device) -> Iterator[None]:
    """Whatever is allocated inside is poisoned. On CUDA what is free as it begins is, so allocate before it."""
    if device.type == "cuda":
        _fill_free_blocks(device)
        yield
    elif (library := allocator.glibc()) is not None:
        library.mallopt(M_PERTURB, FREED)
        try:
            yield
        finally:
            library.mallopt(M_PERTURB, 0)
    else:
        with _deterministic_fill():
            yield


def _fill_free_blocks(device: torch.device) -> None:
    """Allocate every free block of this stream's pools at its size, largest first, fill it, and free them all."""
    stream = torch.cuda.current_stream(device).cuda_stream
    torch.cuda.synchronize(device)
    index = device.index if device.index is not None else torch.cuda.current_device()
    sizes = [
        block["size"]
        for segment in torch.cuda.memory_snapshot()
        if segment["device"] == index and segment["stream"] == stream
        for block in segment["blocks"]
        if block["state"] == "inactive" and _pool(block["size"]) == segment["segment_type"]
    ]
    held = []
    for size in sorted(sizes, reverse=True):
        held.append(torch.empty(size, dtype=torch.uint8, device=device))
        held[-1].fill_(0xFF)


def _pool(size: int) -> str:
    """Which of the allocator's pools serves a request of this size; a remnant in the other one stays as it is."""
    return "small" if size <= 1 << 20 else "large"


@contextmanager
def _deterministic_fill() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # fill_uninitialized_memory is on by default
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])

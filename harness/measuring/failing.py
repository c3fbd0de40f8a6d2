"""How a case fails: what its row says, what keeps it from harming others, and whether its process is fit to go on.

limit_memory(device, peak=bytes); footing = Footing(device)    # before the case
status, note = classify(error)                         # it raised
footing.holds(status)                                  # False: end this process, which costs seconds
"""

from __future__ import annotations

import gc
import resource

import torch

import attentions
from harness.machine import allocator
from harness.machine.memory import free_bytes
from harness.measuring.outputs import WrongResult
from harness.measuring.truth import KEPT

SLACK = 1 / 256  # of the device's memory: libraries keep workspaces from their first use on
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory", "bad_alloc")


class Footing:
    """What a device's memory held before a case."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.held = self._held()

    def holds(self, status: str) -> bool:
        """Whether the process is as it was, once the case's own objects are let go.

        CPU: unless memory ran out, which leaves a heap in pieces. CUDA: where the context still computes (after an
        illegal access it never does again) and the case has given back its memory.
        """
        if self.device == "cpu":
            return status != "oom"
        gc.collect()
        try:
            torch.cuda.synchronize(self.device)
            computes = torch.ones(2, device=self.device).sum().item() == 2
            torch.cuda.empty_cache()
        except RuntimeError:
            return False
        return computes and self._held() <= self.held + SLACK * torch.cuda.mem_get_info(self.device)[1]

    def _held(self) -> int:
        if self.device == "cpu":
            return 0
        return torch.cuda.memory_allocated(self.device) - KEPT.nbytes


def classify(error: Exception) -> tuple[str, str]:
    """The row's status and note for what a case raised."""
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, WrongResult):
        return "error", text
    if isinstance(error, attentions.Unavailable):
        return "unavailable", text
    if isinstance(error, attentions.AttentionError):
        return "unsupported", text
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(s in text.lower() for s in OUT_OF_MEMORY):
        return "oom", text
    return "error", f"{type(error).__name__}: {text}"


def limit_memory(device: str, *, peak: int | None = None) -> None:
    """On the CPU: make an allocation beyond what is free now fail here, before the kernel kills someone for it.

    What a call frees is kept for the next one, if there is room for calls that hold up to `peak` bytes.
    """
    if device != "cpu":
        return
    allocator.give_back()
    free = free_bytes("cpu")
    allocator.keep(peak or 0, free)
    used = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = free + _private_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (limit if used < 0 else min(limit, used), used))


def _private_bytes() -> int:
    """Bytes this process already counts against RLIMIT_DATA."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:")), 0)

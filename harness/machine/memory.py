"""How much memory is free for one case: the device's, or the smaller of the machine's and the container's. No torch."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from harness.machine import system

GROUPS = (  # a control group's limit, its use and what of that the kernel gives back: cgroup version 2, then 1
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_bytes(device: str, *, root: Path = Path("/")) -> int:
    """Bytes that can be allocated on `device` now. CUDA: as the driver tells it, plus what PyTorch holds in reserve.

    root lets a test put a fake /proc and /sys in place.
    """
    if device.startswith("cuda"):
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = [system.memory(root)["available_bytes"] or total]
    for names in GROUPS:
        limits, uses, statistics = (
            list(system.group_files(root, "memory", name)) for name in (*names[:2], "memory.stat")
        )
        for limit, use, statistic in zip(limits, uses, statistics, strict=False):
            most = system.number(limit)  # None for the word "max"
            cached = re.search(rf"^{names[2]} (\d+)", statistic, re.MULTILINE)
            if most is not None:
                found.append(most - (system.number(use) or 0) + (int(cached.group(1)) if cached else 0))
    return max(0, min(found))


def volunteer(pid: int) -> None:
    """Offer the worker to the kernel's out-of-memory killer first: it costs one row, the driver would cost the run."""
    with suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000", encoding="ascii")


def oom_kills() -> int:
    """How many processes the kernel has killed for memory since it started; 0 where it does not tell."""
    try:
        words = Path("/proc/vmstat").read_text(encoding="ascii").split()
        return int(words[words.index("oom_kill") + 1])
    except (OSError, ValueError):
        return 0

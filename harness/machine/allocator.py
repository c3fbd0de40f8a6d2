"""What the CPU's allocator does with memory that a call has freed: kept, so that the next call need not fetch it again.

allocator.keep()         # from here on freed memory stays in the process, as it does in PyTorch's allocator of a GPU
allocator.give_back()    # between two cases: all of it to the system
allocator.freed()        # "kept", or why not

glibc gives a large block back to the system after some calls and not after others, by thresholds that move with what
the process has freed before. Processes of identical code then differ by up to 2.5 times, all of it page faults
(docs/timing.md). An allocator that is chosen by a variable (MALLOC_…, GLIBC_TUNABLES, LD_PRELOAD) is left alone.
No torch.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
CHOSEN_BY = ("GLIBC_TUNABLES", "LD_PRELOAD")


def freed(environ: Mapping[str, str] = os.environ) -> str:
    """`kept`, or the variable that has the say, or that this platform's allocator is not told."""
    chosen = next((name for name in sorted(environ) if name.startswith("MALLOC_") or name in CHOSEN_BY), "")
    if chosen:
        return f"as {chosen} has it"
    return "kept" if glibc() is not None else "as the platform has it"


def keep() -> None:
    """Keep what is freed from here on, where `freed` says so."""
    library = glibc()
    if library is not None and freed() == "kept":
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)  # never


def give_back() -> None:
    """Give what is free in this process back to the system, whoever kept it."""
    library = glibc()
    if library is not None:
        library.malloc_trim(0)


@cache
def glibc() -> Any:
    """glibc as ctypes sees it, or None: other libraries may have a mallopt that does less."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    needed = ("gnu_get_libc_version", "mallopt", "malloc_trim")
    return library if all(hasattr(library, name) for name in needed) else None

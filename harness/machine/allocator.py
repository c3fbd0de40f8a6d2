"""What the CPU's allocator does with memory that a call has freed: kept, so that the next call need not fetch it again.

allocator.keep(peak, free)   # freed memory stays in the process, as in PyTorch's allocator of a GPU, if there is room
allocator.give_back()        # between two cases: all of it to the system
allocator.freed()            # "kept", or why not

glibc gives a large block back to the system after some calls and not after others, by thresholds that move with what
the process has freed before. Processes of identical code then differ by up to three times, all of it page faults
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

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of glibc's malloc.h
LARGE, MANY = 32 << 20, 1 << 16  # the highest threshold that glibc takes; its own bound of mapped blocks
ROOM = 2  # peaks: a heap that keeps what is freed has holes, in the worst case half of it
CHOSEN_BY = ("GLIBC_TUNABLES", "LD_PRELOAD")

_given_back = False


def freed(environ: Mapping[str, str] = os.environ) -> str:
    """`kept`, or the variable that has the say, or that this platform's allocator is not told."""
    chosen = next((name for name in sorted(environ) if name.startswith("MALLOC_") or name in CHOSEN_BY), "")
    if chosen:
        return f"as {chosen} has it"
    return "kept" if glibc() is not None else "as the platform has it"


def keep(peak: int = 0, free: int | None = None) -> None:
    """Keep what is freed from here on, where `freed` says so; of calls that hold up to `peak` bytes only if they have
    room for it in the `free` bytes there are, else blocks of 32 MiB and more go back."""
    global _given_back
    library = glibc()
    if library is None or freed() != "kept":
        return
    _given_back = free is not None and ROOM * peak > free
    library.mallopt(M_MMAP_THRESHOLD, LARGE)
    library.mallopt(M_MMAP_MAX, MANY if _given_back else 0)
    library.mallopt(M_TRIM_THRESHOLD, -1)  # never


def remark() -> str:
    """What a row says of memory that is not kept; "" where it is."""
    told = f"blocks over {LARGE >> 20} MiB were fetched anew by each call: kept, they might not fit"
    return told if _given_back else ""


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

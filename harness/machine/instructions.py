"""Instructions that this process carries out in user mode, from Linux' perf_event, where there is one. No torch.

    counter = Instructions.open()          # raises NoCounter with the reason: most virtual machines have none
    before = counter.read(); ...; counter.read() - before

Preemption, caches and clocks do not touch the number; it is not time, and counts no waiting.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

SYSCALLS = {"x86_64": 298, "aarch64": 241}
HARDWARE, INSTRUCTIONS = 0, 1
EXCLUDE_KERNEL, EXCLUDE_HYPERVISOR = 1 << 5, 1 << 6
SIZE = 128  # of perf_event_attr; the kernel takes a longer one whose end is zero


class NoCounter(RuntimeError):
    """The kernel gives no counter; the message says why."""


class Instructions:
    """An open counter of the calling thread. Threads that were there before it are not counted."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    @classmethod
    def open(cls) -> Instructions:
        """Open and start counting. Raises NoCounter."""
        number = SYSCALLS.get(platform.machine())
        if not sys.platform.startswith("linux") or number is None:
            raise NoCounter(f"perf_event is not known on {sys.platform} {platform.machine()}")
        attributes = bytearray(SIZE)
        struct.pack_into("=IIQ", attributes, 0, HARDWARE, SIZE, INSTRUCTIONS)
        struct.pack_into("=Q", attributes, 40, EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR)
        block = (ctypes.c_char * SIZE).from_buffer(attributes)
        handle = ctypes.CDLL(None, use_errno=True).syscall(number, block, 0, -1, -1, 0)
        if handle < 0:
            raise NoCounter(f"perf_event: {os.strerror(ctypes.get_errno())}")
        found = cls(handle)
        if found.read() == found.read():  # a counter that was opened and does not count
            found.close()
            raise NoCounter("perf_event: the counter does not count")
        return found

    def read(self) -> int:
        """How many so far."""
        return struct.unpack("=Q", os.read(self.handle, 8))[0]

    def close(self) -> None:
        """Stop counting."""
        os.close(self.handle)

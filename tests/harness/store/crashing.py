"""Kill a process at its n-th system call that changes files, by ptrace: what is on disk then is what `kill -9` leaves.

    told, ended = killed_at(7, lambda tell: work(tell))      # a fork runs work; tell(b"x") is heard though it dies

Linux only; the calls are those of x86-64, on other machines every call counts.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from collections.abc import Callable

TRACE_ME, SYSCALL, SET_OPTIONS, SYSCALL_INFO = 0, 24, 0x4200, 0x420E
MARK_SYSCALLS, KILL_WITH_TRACER = 1, 1 << 20
ENTRY = 1
# write pwrite64 writev close fsync fdatasync truncate ftruncate rename mkdir rmdir creat link unlink symlink chmod open
# openat mkdirat unlinkat renameat renameat2 linkat fallocate flock sendfile copy_file_range munmap msync fcntl
CHANGING = frozenset(
    (
        1,
        18,
        20,
        3,
        74,
        75,
        76,
        77,
        82,
        83,
        84,
        85,
        86,
        87,
        88,
        90,
        2,
        257,
        258,
        263,
        264,
        316,
        265,
        285,
        73,
        40,
        326,
        26,
    )
)


def possible() -> bool:
    """Whether this system lets a process trace its own child."""
    if sys.platform != "linux":
        return False
    try:
        return killed_at(1 << 30, lambda tell: tell(b"x")) == (b"x", None)
    except OSError:
        return False


def killed_at(number: int, work: Callable[[Callable[[bytes], None]], object]) -> tuple[bytes, int | None]:
    """What `work` told before its process was killed at that call (from 0), and None where it ended before, else -9."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _run(work, reading, writing)
    os.close(writing)
    try:
        status = _step(child, number)
        told = b""
        while part := os.read(reading, 4096):
            told += part
    finally:
        os.close(reading)
    return told, None if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0 else os.waitstatus_to_exitcode(status)


def _run(work: Callable[[Callable[[bytes], None]], object], reading: int, writing: int) -> None:
    code = 1
    try:
        os.close(reading)
        if _ptrace(TRACE_ME, 0, 0, 0) == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
            work(lambda text: os.write(writing, text) and None)
            code = 0
    finally:
        os._exit(code)


def _step(child: int, number: int) -> int:
    """Let the child go on from call to call, and kill it as it begins the one asked for. Returns how it ended."""
    _, status = os.waitpid(child, 0)
    if not os.WIFSTOPPED(status):
        raise OSError("this system lets nobody trace")
    if _ptrace(SET_OPTIONS, child, 0, MARK_SYSCALLS | KILL_WITH_TRACER) < 0:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise OSError("this system lets nobody trace")
    about, seen, deliver = (ctypes.c_uint8 * 88)(), 0, 0
    while True:
        _ptrace(SYSCALL, child, 0, deliver)
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            return status
        deliver = 0
        if os.WSTOPSIG(status) != signal.SIGTRAP | 0x80:
            deliver = os.WSTOPSIG(status)
            continue
        _ptrace(SYSCALL_INFO, child, 88, ctypes.addressof(about))
        if about[0] == ENTRY and (
            platform.machine() != "x86_64" or int.from_bytes(bytes(about[24:32]), sys.byteorder) in CHANGING
        ):
            if seen == number:
                os.kill(child, signal.SIGKILL)
            seen += 1


def _ptrace(request: int, child: int, address: int, data: int) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    library.ptrace.restype = ctypes.c_long
    return library.ptrace(request, child, ctypes.c_void_p(address), ctypes.c_void_p(data))

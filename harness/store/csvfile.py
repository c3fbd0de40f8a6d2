"""A CSV file that only grows: whole lines, appended and fsynced; a line that a crash tore is known by its missing end.

file = CsvFile(path, COLUMNS)            # creates it; file.lock() is False while another process holds it
file.append([["a", "1"], ["b", "2"]])    # all of it, or none and StoreFull; StoreLost where the file is not there now
"""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.errors import Failure, UsageError, brief, reason
from harness.store import opening


class StoreError(UsageError):
    """A folder or file that is not a run this version can use; nothing in it was changed."""


class StoreFull(Failure):
    """A write failed (disk full, quota, permissions): everything before it is intact."""


class StoreLost(Failure):
    """What was written is no longer where it was written to."""


class CsvFile:
    """An open file with fixed columns. Its lock ends with the process, however it ends. Raises OSError on creation."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)
        self._header = _encode([columns])
        self._handle = opening.opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self._size: int | None = None  # bytes once this process alone writes them

    def lock(self) -> bool:
        """Take the file for this process; False when another has it."""
        return locked(self._handle)

    def close(self) -> None:
        """Close it, and with it end the lock."""
        os.close(self._handle)

    def lines(self) -> list[bytes]:
        """The whole lines after the header, without their ends; a torn last line is left out."""
        return self._whole().split(b"\n")[1:-1]

    def mend(self) -> bool:
        """Write the header of a new file; cut a torn line off. Whether there was one."""
        size, whole = os.fstat(self._handle).st_size, self._whole()
        if not whole:
            os.ftruncate(self._handle, 0)
            self._size = 0
            self._write(self._header)
            return False
        os.ftruncate(self._handle, len(whole))
        self._size = len(whole)
        return len(whole) < size

    def cut(self, lines: Iterable[bytes]) -> None:
        """Drop these lines, which are the file's last."""
        self._size = os.fstat(self._handle).st_size - sum(len(line) + 1 for line in lines)
        os.ftruncate(self._handle, self._size)
        os.fsync(self._handle)

    def append(self, rows: Iterable[Iterable[Any]]) -> None:
        """Write rows in one go and fsync, or leave the file as it was and raise StoreFull."""
        self.check()
        self._write(_encode(rows))

    def check(self) -> None:
        """Raise StoreLost where the file is no longer the one that was opened, or holds other bytes than were written.

        What is appended to a deleted file goes with it, without a word of the system's.
        """
        mine = os.fstat(self._handle)
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except OSError as error:
            what = "was deleted" if isinstance(error, FileNotFoundError) else f"is out of reach ({reason(error)})"
            raise StoreLost(f"{self.path} {what} while it was written to; rows are lost") from None
        if (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino):
            raise StoreLost(f"{self.path} was replaced while it was written to; rows are lost")
        if self._size is not None and mine.st_size != self._size:
            raise StoreLost(
                f"{self.path} was changed while it was written to: it has {mine.st_size} bytes, not the {self._size} "
                "written; rows may be lost"
            )

    def _whole(self) -> bytes:
        size = os.fstat(self._handle).st_size
        if size > opening.MOST_BYTES:
            raise StoreError(f"{self.path} has {size} bytes; at most {opening.MOST_BYTES} are read")
        os.lseek(self._handle, 0, os.SEEK_SET)
        with os.fdopen(os.dup(self._handle), "rb") as file:
            found = file.read()
        return found[: found.rfind(b"\n") + 1]

    def _write(self, data: bytes) -> None:
        before, left = os.fstat(self._handle).st_size, memoryview(data)
        try:
            while left:
                left = left[os.write(self._handle, left) :]
            os.fsync(self._handle)
        except OSError as error:
            with suppress(OSError):  # a torn line is cut off when the run is opened again
                os.ftruncate(self._handle, before)
            raise full(self.path, error) from None
        self._size = before + len(data)


def locked(handle: int) -> bool:
    """Take an open file or folder for this process; False when another has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno == errno.EBADF  # NFS locks no folder, only files that are open for writing
    return True


def full(path: Path, error: OSError) -> StoreFull:
    """The failure to write `path` in one sentence."""
    return StoreFull(f"cannot write {path}: {reason(error)}; every earlier row is intact")


def check_header(path: Path, columns: Sequence[str], *, links: bool = False) -> None:
    """Raise StoreError where the file exists and begins otherwise; one torn while its header was written does not."""
    try:
        if not opening.present(path):
            return
        with os.fdopen(opening.opened(path, links=links), "rb") as file:
            check_columns(path, file.readline(1 << 16), columns, size=os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {reason(error)}") from None


def check_columns(path: Path, first: bytes, columns: Sequence[str], *, size: int) -> None:
    """Raise StoreError unless a file of so many bytes that begins with this line has these columns, or none yet."""
    found, expected = first.rstrip(b"\r\n"), ",".join(columns).encode()
    if found == expected or (expected.startswith(found) and size == len(found)):
        return
    names = found.decode("utf-8", errors="replace").split(",")
    strange = [brief(name, 40) for name in names if name not in columns]
    missing = [name for name in columns if name not in names]
    raise StoreError(
        f"{path} has foreign columns and was left untouched: "
        f"unknown {', '.join(strange[:4]) or 'none'}; missing {', '.join(missing[:4]) or 'none'}"
    )


def cells(line: bytes) -> list[str]:
    """The cells of one line; none where it is no CSV."""
    try:
        return next(csv.reader([line.decode("utf-8", errors="replace")]))
    except csv.Error:
        return []


def _encode(rows: Iterable[Iterable[Any]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode("utf-8")

"""A CSV file that only grows: whole lines, appended and fsynced; a line that a crash tore is known by its missing end.

file = CsvFile(path, COLUMNS)            # creates it; file.lock() is False while another process holds it
file.append([["a", "1"], ["b", "2"]])    # all of it, or none and StoreFull
"""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.errors import Failure, UsageError


class StoreError(UsageError):
    """A folder or file that is not a run this version can use; nothing in it was changed."""


class StoreFull(Failure):
    """A write failed (disk full, quota, permissions): everything before it is intact."""


class CsvFile:
    """An open file with fixed columns. Its lock ends with the process, however it ends. Raises OSError on creation."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)
        self._header = _encode([columns])
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)

    def lock(self) -> bool:
        """Take the file for this process; False when another has it."""
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close it, and with it end the lock."""
        os.close(self._handle)

    def lines(self) -> list[bytes]:
        """The whole lines after the header, without their ends; a torn last line is left out."""
        return self._whole()[len(self._header) :].split(b"\n")[:-1]

    def mend(self) -> bool:
        """Write the header of a new file; cut a torn line off. Whether there was one."""
        size, whole = os.fstat(self._handle).st_size, self._whole()
        if len(whole) < len(self._header):
            os.ftruncate(self._handle, 0)
            self._write(self._header)
            return False
        os.ftruncate(self._handle, len(whole))
        return len(whole) < size

    def cut(self, lines: Iterable[bytes]) -> None:
        """Drop these lines, which are the file's last."""
        os.ftruncate(self._handle, os.fstat(self._handle).st_size - sum(len(line) + 1 for line in lines))
        os.fsync(self._handle)

    def append(self, rows: Iterable[Iterable[Any]]) -> None:
        """Write rows in one go and fsync, or leave the file as it was and raise StoreFull."""
        self._write(_encode(rows))

    def _whole(self) -> bytes:
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
            os.ftruncate(self._handle, before)
            raise full(self.path, error) from None


def full(path: Path, error: OSError) -> StoreFull:
    """The failure to write `path` in one sentence."""
    reason = "no space left on the disk" if error.errno == errno.ENOSPC else error.strerror
    return StoreFull(f"cannot write {path}: {reason}; every earlier row is intact")


def check_header(path: Path, columns: Sequence[str]) -> None:
    """Raise StoreError where the file exists and begins otherwise; one torn while its header was written does not."""
    if not path.exists():
        return
    expected = ",".join(columns).encode()
    with path.open("rb") as file:
        found = file.readline(1 << 16).rstrip(b"\r\n")
    if found == expected or (expected.startswith(found) and path.stat().st_size == len(found)):
        return
    names = found.decode("utf-8", errors="replace").split(",")
    strange = [name[:40] for name in names if name not in columns]
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

"""Files of a run, opened in one place: regular files only, no link followed, no more bytes than are of use. No torch.

data = read(folder / "sweep.toml")              # OSError says why not, harness.errors.reason puts it in words
handle = opened(folder / "measurements.csv", os.O_RDWR | os.O_CREAT | os.O_APPEND)

A run is a folder that somebody else may have made: a link in it leads to a file that its reader never meant to show, a
pipe waits for ever, a device has no end. A link to the folder itself is the user's own.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MOST_BYTES = 1 << 31  # of a file with rows; a document has a limit of its own
PART = 1 << 22
KINDS = {
    stat.S_IFLNK: "a link, and links inside a run are not followed", stat.S_IFIFO: "a pipe, not a file",
    stat.S_IFDIR: "a folder, not a file", stat.S_IFSOCK: "a socket, not a file",
    stat.S_IFCHR: "a device, not a file", stat.S_IFBLK: "a device, not a file",
}  # fmt: skip


def opened(path: Path, flags: int = os.O_RDONLY, *, links: bool = False) -> int:
    """A descriptor of a regular file. links: the user named this very path, and may mean what a link leads to.

    Raises OSError: the system's, or EINVAL with the kind of thing that is there instead.
    """
    follow = 0 if links else os.O_NOFOLLOW
    _refuse(path, (os.stat if links else os.lstat), missing=bool(flags & os.O_CREAT))
    try:
        handle = os.open(path, flags | follow | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)  # a pipe must not be waited for
    except OSError:
        _refuse(path, os.stat if links else os.lstat, missing=True)  # it changed meanwhile
        raise
    kind = stat.S_IFMT(os.fstat(handle).st_mode)
    if kind != stat.S_IFREG:
        os.close(handle)
        raise OSError(errno.EINVAL, f"it is {KINDS.get(kind, 'no file')}", str(path))
    return handle


def read(path: Path, *, most: int = MOST_BYTES, links: bool = False, pipes: bool = False) -> bytes:
    """The whole of a file of a run. pipes: what the user named may be one, as a shell makes of <(…). Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if pipes else opened(path, links=links)
    with os.fdopen(handle, "rb") as file:
        found, parts = os.fstat(handle).st_size, []  # of a pipe 0
        length = 0
        while found <= most and (part := file.read(PART)):
            parts.append(part)
            length += len(part)
            found = max(found, length)
    if found > most:
        raise OSError(errno.EFBIG, f"it has {found} bytes; at most {most} are read", str(path))
    return b"".join(parts)


def present(path: Path) -> bool:
    """Whether anything is there, a link that leads nowhere included. Raises OSError where that cannot be told."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def writable(folder: Path) -> bool:
    """Whether this process may make files in a folder, as far as that can be told before."""
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _refuse(path: Path, look: object, *, missing: bool) -> None:
    """Raise OSError for what is no regular file; for what is not there unless it may be missing."""
    try:
        kind = stat.S_IFMT(look(path).st_mode)  # type: ignore[operator]
    except FileNotFoundError:
        if missing:
            return
        raise
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"it is {KINDS.get(kind, 'no file')}", str(path))

"""A file replaced whole: whoever reads it, and a crash at any moment, finds the old one or the new one. No torch.

with replacing(Path("results/baseline.csv")) as partial:
    partial.write_text(text, encoding="utf-8")
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path, *, several: bool = False) -> Iterator[Path]:
    """A hidden neighbour of `path` to write; it is synced and takes the place of `path`, or goes away on any error.

    several: two processes may do so at once, so the neighbour is named after this one. Raises OSError.
    """
    own = f".{os.getpid()}" if several else ""
    partial = path.with_name(f".{path.name}{own}.partial")
    try:
        partial.unlink(missing_ok=True)  # what a link there leads to is not ours to write
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)

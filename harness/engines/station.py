"""What runs on a node of a Ray cluster: a place with a local worker, in an actor. No torch, and no Ray either.

actor = ray.remote(Station).options(num_gpus=1).remote([("nets/my.py", {"my.py": b"..."})], "cuda:0")
kind, session = ray.get(actor.open.remote())       # "answer", or "usage" or "failure" with their sentence
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.cases.catalogue import Resolution
from harness.engines import local
from harness.engines.place import Place, Task
from harness.errors import Failure, UsageError
from harness.store.record import Case


class Station:
    """A place whose answers are (kind, value), errors too. plugins: each one's path for the user, and its files."""

    def __init__(self, plugins: Sequence[tuple[str, Mapping[str, bytes]]], device: str) -> None:
        _undo_threads()
        self._paths = {
            str(_written(files)): given for given, files in plugins
        }  # a copy here, and what the user calls it
        self._place = Place(local.Engine(plugins=list(self._paths), device=device))

    def open(self) -> tuple[str, Any]:
        return self._answer(self._place.open)

    def resolve(self, cases: Sequence[Case]) -> tuple[str, Any]:
        return self._answer(self._place.resolve, cases)

    def visit(self, resolution: Resolution, task: Task) -> tuple[str, Any]:
        return self._answer(self._place.visit, resolution, task)

    def look(self) -> tuple[str, Any]:
        return self._answer(self._place.look)

    def examine(self, seconds: float) -> tuple[str, Any]:
        return self._answer(self._place.examine, seconds)

    def _answer(self, method: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
        try:
            answer = method(*arguments)
        except (UsageError, Failure) as error:
            text = str(error)
            for path, given in self._paths.items():
                text = text.replace(path, given)
            return ("usage" if isinstance(error, UsageError) else "failure"), text
        return "answer", answer


def _written(files: Mapping[str, bytes]) -> Path:
    """A copy of a plugin (harness.cases.plugins.files) in a folder of its own: its file, or its package's folder."""
    folder = Path(tempfile.mkdtemp(prefix="harness-plugin-"))
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder / Path(next(iter(files))).parts[0]


def _undo_threads() -> None:
    """Take back the OMP_NUM_THREADS that Ray sets for an actor: a node measures with the threads it has without Ray."""
    with suppress(OSError):
        of_node = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
        if not any(line.startswith(b"OMP_NUM_THREADS=") for line in of_node):
            os.environ.pop("OMP_NUM_THREADS", None)

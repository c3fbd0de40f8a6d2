"""Tasks, ONE FILE A TASK, found by file name: a file here defines TASK, a harness.vision.task.Task.

task = get("classification")
names()                                      # ['classification', 'detection', ...]
"""

from __future__ import annotations

import importlib
import pkgutil

from harness.errors import UsageError, unknown
from harness.vision.task import Task


def names() -> list[str]:
    """The names of all tasks, in alphabetical order. Imports none of them."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))


def get(name: str) -> Task:
    """The task called `name`. Raises UsageError with the valid and the nearest name."""
    if name not in names():
        raise UsageError(unknown("task", name, names()))
    return importlib.import_module(f"{__name__}.{name}").TASK

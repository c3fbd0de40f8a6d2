"""Plugins of a sweep: files of code, run only where this call names them, and one file for the whole of a run.

known = digests(sweep.plugin)                  # {"mine.py": "3f2c…"}, kept in environment.json
check_same(known, digests(sweep.plugin))       # UsageError where a file was edited since
check_named(stored.plugin, given)              # UsageError where only a file of data asks for one
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import UsageError, brief, reason

DIGITS = 16


def digests(paths: Iterable[str]) -> dict[str, str]:
    """The first digits of each file's SHA-256 by its name. Raises UsageError for one that cannot be read."""
    found: dict[str, str] = {}
    for path in paths:
        try:
            content = Path(path).read_bytes()
        except FileNotFoundError:
            raise UsageError(f"plugin {path}: no such file") from None
        except OSError as error:
            raise UsageError(f"plugin {path}: {reason(error)}") from None
        name = Path(path).name
        found[name] = found.get(name, "") + hashlib.sha256(content).hexdigest()[:DIGITS]
    return found


def check_same(known: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise UsageError for a plugin that is another one than the run's rows came from. known: {} where none is told."""
    for name, digest in now.items():
        if name in known and known[name] != digest:
            raise UsageError(
                f"plugin {name} was edited since this run began (sha256 {known[name]}… then, {digest}… now): its rows "
                "would come from two implementations; put the file back, or start a new run with another --out"
            )


def check_named(stored: Iterable[str], given: Mapping[str, Any], *, source: str) -> None:
    """Raise UsageError where `source`, a file of data, names plugins and this call does not name them itself."""
    named = [Path(path).name for path in stored]
    if not named:
        return
    if not given.get("plugin"):
        wanted = " ".join(f"--plugin {brief(path)}" for path in stored)
        raise UsageError(
            f"{source} names the plugin {brief(', '.join(named))}, which is code: a file of data runs none; "
            f"read it, then add {wanted}"
        )

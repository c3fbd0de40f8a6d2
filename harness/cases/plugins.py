"""Plugins of a sweep: code, run only where this call names it, and the same for the whole of a run. No torch.

known = digests(sweep.plugin)                  # {"mine.py": "3f2c…"}, kept in environment.json
check_same(known, digests(sweep.plugin))       # UsageError where a file was edited since
check_named(stored.plugin, given)              # UsageError where only a file of data asks for one
asked_again(known, paths, source="the run in …")   # both, of a run that is resumed: the digests that it goes on with
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UsageError, brief, reason

DIGITS = 16


def digests(paths: Iterable[str]) -> dict[str, str]:
    """The first digits of the SHA-256 of each file, or of all of a package's, by its name.

    Raises UsageError for one that cannot be read.
    """
    found: dict[str, str] = {}
    for path in paths:
        try:
            content = contents(Path(path))
        except FileNotFoundError:
            raise UsageError(f"plugin {path}: no such file") from None
        except OSError as error:
            raise UsageError(f"plugin {path}: {reason(error)}") from None
        name = Path(path).name
        found[name] = found.get(name, "") + hashlib.sha256(content).hexdigest()[:DIGITS]
    return found


def contents(path: Path) -> bytes:
    """What a plugin's code is: the file, or every Python file of a package with its name. Raises OSError."""
    if not is_package(path):
        return path.read_bytes()
    files = sorted(path.rglob("*.py"))
    return b"\0".join(part for file in files for part in (str(file.relative_to(path)).encode(), file.read_bytes()))


def files(path: Path) -> dict[str, bytes]:
    """A plugin as another machine is given it: the file, or every Python file of a package, by where it lies beside it.

    Raises OSError.
    """
    if not is_package(path):
        return {path.name: path.read_bytes()}
    folder = path.resolve()
    return {str(file.relative_to(folder.parent)): file.read_bytes() for file in sorted(folder.rglob("*.py"))}


def is_package(path: Path) -> bool:
    """Whether it is a folder that Python imports."""
    return (path / "__init__.py").is_file()


def check_same(known: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise UsageError for a plugin that is another one than the run's rows came from. known: {} where none is told."""
    for name, digest in now.items():
        if name in known and known[name] != digest:
            raise UsageError(
                f"plugin {name} was edited since this run began (sha256 {known[name]}… then, {digest}… now): its rows "
                "would come from two implementations; put the file back, or start a new run with another --out"
            )


def asked_again(known: Mapping[str, str], paths: Sequence[str], *, source: str) -> dict[str, str]:
    """The digests of a resumed run's plugins, `known` those it was begun with.

    Raises UsageError unless this call names every one of them and each is as it was.
    """
    check_named(known, {"plugin": [*paths]}, source=source)
    now = digests(paths)
    if lacking := [name for name in known if name not in now]:
        given = ", ".join(now)
        raise UsageError(f"{source} has the plugin {lacking[0]}, and this call {given}: add --plugin {lacking[0]}")
    check_same(known, now)
    return now


def check_named(stored: Iterable[str], given: Mapping[str, Any], *, source: str) -> None:
    """Raise UsageError where `source`, a file of data, names plugins and this call does not name them itself."""
    named = [Path(path).name for path in stored]
    if not named:
        return
    if not given.get("plugin"):
        wanted = " ".join(f"--plugin {brief(path, 400)}" for path in stored)
        raise UsageError(
            f"{source} names the plugin {brief(', '.join(named))}, which is code: a file of data runs none; "
            f"read it, then add {wanted}"
        )

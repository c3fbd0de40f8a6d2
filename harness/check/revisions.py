"""The two sides of a comparison: where each one's code lies, what imports it, and which interpreter runs it.

root = repository()
with sides(root, resolve(root, "origin/main"), plugins=["mine.py"]) as (base, head):
    Engine(plugins=base.plugins, device="cpu", python=base.python, path=base.path)

Both sides are measured by this harness, so that a change of the harness is no effect: a folder of links puts `harness`
beside the `attentions` of its side, and is first on the workers' import path. The folders' names are of one length: the
size of the environment shifts the stack, which has been mistaken for an effect before.
Source: Mytkowicz et al. 2009, "Producing wrong data without doing anything obviously wrong!", ASPLOS.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from harness.cases.plugins import is_package
from harness.check import interpreter
from harness.errors import Failure, NothingToCompare, UsageError
from harness.machine.environment import ELSEWHERE

IRRELEVANT_FOLDERS = ("docs", "results", "tests", "scripts", ".github", ".ci")
IRRELEVANT_ENDINGS = (".md", ".rst", ".csv", ".png", ".svg", ".cff", ".html")


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side: the folders that go first on its import path, its plugins, its interpreter, and how to name it.

    origin: where its workers must say that the measured code lies; a side that measured other code is refused.
    """

    name: str
    commit: str
    path: tuple[str, ...]
    plugins: tuple[str, ...]
    python: str
    origin: tuple[str, ...]
    notes: tuple[str, ...] = ()
    rebuilt: bool = False


@contextmanager
def sides(root: Path, commit: str, *, plugins: Sequence[str], python: str | None = None) -> Iterator[tuple[Side, Side]]:
    """Base at `commit` and head as it is here, while the context lasts. `python` runs base instead of a built one.

    Raises NothingToCompare where base has no attentions, Failure when base's worktree or environment cannot be made.
    """
    folder = Path(tempfile.mkdtemp(prefix="harness-check-"))
    tree = folder / "tree"
    with _terminable():
        try:
            _run(root, "worktree", "add", "--detach", "--force", str(tree), commit)
            yield _sides(root, tree, folder, commit, plugins, python)
        finally:
            git(root, "worktree", "remove", "--force", "--force", str(tree))
            shutil.rmtree(folder, ignore_errors=True)
            git(root, "worktree", "prune")


@contextmanager
def here(*, plugins: Sequence[str]) -> Iterator[Side]:
    """Head alone."""
    folder = Path(tempfile.mkdtemp(prefix="harness-check-"))
    try:
        yield _head(folder, plugins)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def repository() -> Path:
    """The git checkout around the current folder. Raises UsageError when there is none."""
    if shutil.which("git") is None:
        raise UsageError("--against needs git, which is not on PATH; --baseline FILE works without")
    found = git(Path.cwd(), "rev-parse", "--show-toplevel")
    if not found:
        raise UsageError(f"{Path.cwd()} is not in a git repository; --against needs one, --baseline FILE does not")
    return Path(found).resolve()


def resolve(root: Path, revision: str) -> str:
    """The commit that a revision names. Raises UsageError."""
    commit = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if commit:
        return commit
    shallow = git(root, "rev-parse", "--is-shallow-repository") == "true"
    hint = "this clone is shallow: fetch more (actions/checkout takes fetch-depth: 0)" if shallow else ""
    hint = hint or "give a branch, tag or commit that `git rev-parse` knows, such as origin/main"
    raise UsageError(f"unknown revision {revision!r} in {root}; {hint}")


def changed(root: Path, commit: str) -> list[str]:
    """The files that differ between a commit and what lies here, untracked files included."""
    tracked = git(root, "diff", "--name-only", "--no-renames", "-z", commit, "--") or ""
    untracked = git(root, "ls-files", "--others", "--exclude-standard", "-z") or ""
    return sorted({name for name in (tracked + untracked).split("\0") if name})


def differing(root: Path, commit: str, revision: str) -> list[str]:
    """The changed files. Raises NothingToCompare for none: base against itself passes whatever the code does."""
    return refuse_same(changed(root, commit), revision)


def refuse_same(files: list[str], revision: str) -> list[str]:
    """The files, of which there must be some."""
    if not files:
        raise NothingToCompare(f"{revision} is what is checked out here: base and head are the same files")
    return files


def measured(root: Path, files: Sequence[str]) -> list[str]:
    """Those of the changed files that a measurement can depend on; this harness itself measures both sides."""
    own = Path(harness.__file__).resolve().parent
    return [
        name
        for name in files
        if name.split("/", 1)[0] not in IRRELEVANT_FOLDERS
        and not name.endswith(IRRELEVANT_ENDINGS)
        and not (root / name).resolve().is_relative_to(own)
    ]


def git(folder: Path, *arguments: str) -> str | None:
    """What git answers, or None when it fails. A hook's variables do not lead it to another repository."""
    done = _git(folder, arguments)
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


def _run(folder: Path, *arguments: str) -> None:
    done = _git(folder, arguments)
    if done.returncode:
        raise Failure(f"git {arguments[0]} {arguments[1]} failed: {' '.join(done.stderr.split())[-300:]}")


def _git(folder: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    return subprocess.run(
        ["git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-C", str(folder), *arguments],
        capture_output=True, text=True, errors="surrogateescape", env=environ, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


def _sides(
    root: Path, tree: Path, folder: Path, commit: str, plugins: Sequence[str], python: str | None
) -> tuple[Side, Side]:
    head = _head(folder, plugins)
    own = _attentions()
    inside = own.is_relative_to(root)
    code = tree / own.relative_to(root) if inside else own
    if not (code / "__init__.py").is_file():
        raise NothingToCompare(f"{commit[:12]} has no {own.relative_to(root)}/: there is nothing to compare with")
    path = [str(_links(folder / "base", code)), *_moved(root, tree)]
    moved, notes = [], []
    for plugin in map(Path, head.plugins):
        there = tree / plugin.relative_to(root) if plugin.is_relative_to(root) else plugin
        if there == plugin:
            notes.append(f"{plugin} lies outside {root}: it is the same file on both sides")
        if there.is_file() or is_package(there):
            moved.append(str(there))
        else:
            notes.append(f"{plugin.relative_to(root)} is new: {commit[:12]} does not have it")
    chosen, remark = (python, f"base runs on {python}") if python else interpreter.of(root, tree, folder / "venv")
    return Side(
        name="base", commit=commit[:12], path=tuple(path), plugins=tuple(moved), python=chosen,
        origin=(str(code.resolve()), *(str(Path(p).resolve()) for p in moved)), notes=(*notes, remark),
        rebuilt=chosen != sys.executable,
    ), head  # fmt: skip


def _head(folder: Path, plugins: Sequence[str]) -> Side:
    from harness.machine.environment import commit

    files = []
    for plugin in plugins:
        path = Path(plugin).resolve()
        if not (path.is_file() or is_package(path)):
            raise UsageError(f"plugin {plugin}: no such file")
        files.append(str(path))
    own = _attentions()
    return Side(
        name="head", commit=commit(Path.cwd()), path=(str(_links(folder / "head", own)),), plugins=tuple(files),
        python=sys.executable, origin=(str(own), *files),
    )  # fmt: skip


def _attentions() -> Path:
    """Where this process would import attentions from; found without importing it."""
    found = importlib.util.find_spec("attentions")
    if found is None or not found.submodule_search_locations:
        raise Failure("the package attentions cannot be found")
    return Path(next(iter(found.submodule_search_locations))).resolve()


def _links(folder: Path, code: Path) -> Path:
    folder.mkdir()
    (folder / "attentions").symlink_to(code, target_is_directory=True)
    (folder / "harness").symlink_to(Path(harness.__file__).resolve().parent, target_is_directory=True)
    return folder


def _moved(root: Path, tree: Path) -> list[str]:
    """The import path's folders inside the repository, as they are in the worktree: for code installed in place."""
    entries = [Path(entry).resolve() for entry in sys.path if entry]
    inside = [tree / entry.relative_to(root) for entry in entries if entry.is_relative_to(root)]
    return list(dict.fromkeys(str(entry) for entry in inside if entry.is_dir()))


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn a request to terminate into an exception, so that the worktree is removed."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

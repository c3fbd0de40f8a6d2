"""Which interpreter runs base: this one while the dependencies are the same, else a fresh environment for base.

python, remark = of(repository, worktree, folder / "venv")
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.errors import Failure
from harness.store.documents import Damaged, parse_toml

WHOLE_FILES = ("constraints*.txt", "requirements*.txt", "setup.cfg", "setup.py", "uv.lock", "poetry.lock", "pdm.lock")
PROJECT_KEYS = ("dependencies", "optional-dependencies", "requires-python", "entry-points", "dynamic")
NEEDED = "import torch, numpy, jaxtyping"
BUILD_TIMEOUT_S = 1800


def of(root: Path, tree: Path, venv: Path) -> tuple[str, str]:
    """The interpreter for the worktree and a sentence about it. Raises Failure when one cannot be built."""
    differing = differences(root, tree)
    if not differing:
        return sys.executable, "base and head run in this environment: the dependency files are the same"
    python = build(tree, venv)
    return python, f"base runs in an environment of its own: {', '.join(differing)} differ"


def differences(root: Path, tree: Path) -> list[str]:
    """The dependency files that differ; of pyproject.toml only what decides what is installed."""
    names = {path.name for folder in (root, tree) for pattern in WHOLE_FILES for path in folder.glob(pattern)}
    found = [name for name in sorted(names) if _bytes(root / name) != _bytes(tree / name)]
    if _requirements(root / "pyproject.toml") != _requirements(tree / "pyproject.toml"):
        found.append("pyproject.toml")
    return found


def build(tree: Path, venv: Path) -> str:
    """An environment with the worktree's dependencies; by uv where it is here (shared files, seconds), else by pip."""
    for command in commands(tree, venv, uv=_uv()):
        _run(command, tree)
    python = str(venv / "bin" / "python")
    _run([python, "-c", NEEDED], tree)
    return python


def commands(tree: Path, venv: Path, *, uv: str | None) -> list[list[str]]:
    """The command lines that make the environment: create it, install what the worktree asks for."""
    python = str(venv / "bin" / "python")
    wanted: list[str] = []
    for name in sorted(path.name for path in tree.glob("constraints*.txt")):
        wanted += ["--constraint", str(tree / name)]
    for name in sorted(path.name for path in tree.glob("requirements*.txt")):
        wanted += ["--requirement", str(tree / name)]
    if (tree / "pyproject.toml").is_file() and "project" in _document(tree / "pyproject.toml"):
        wanted.append(str(tree))
    if uv:
        create = [uv, "venv", "--quiet", "--python", sys.executable, str(venv)]
        return [create, [uv, "pip", "install", "--quiet", "--python", python, *wanted, "jaxtyping"]]
    create = [sys.executable, "-m", "venv", str(venv)]
    return [create, [python, "-m", "pip", "install", "--quiet", *wanted, "jaxtyping"]]


def _uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else shutil.which("uv")


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"base's environment cannot be built: {error}") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-400:]
        raise Failure(
            f"base's environment cannot be built: {' '.join(command[:4])} … failed: {said}; "
            "--base-python PATH takes one that you built"
        )


def _requirements(path: Path) -> Any:
    document = _document(path)
    project, tool = document.get("project", {}), document.get("tool", {})
    kept = {key: project.get(key) for key in PROJECT_KEYS}
    return kept, document.get("dependency-groups"), tool.get("uv"), tool.get("poetry")


def _document(path: Path) -> dict[str, Any]:
    try:
        return parse_toml(path.read_bytes())
    except (OSError, Damaged):
        return {}


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None

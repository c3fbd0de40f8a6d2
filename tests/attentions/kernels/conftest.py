"""Kernel tests run three ways: interpreted on the CPU, compiled ahead of time for GPUs that are not there, on a GPU.

Triton decides whether to interpret when a kernel is defined, so the interpreted tests need a process of their own:
`interpreted` runs a file's tests again with TRITON_INTERPRET=1.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def interpreted() -> Callable[[str], None]:
    """Run tests/attentions/kernels/<file> under the interpreter; fails with its output."""

    def run(file: str) -> None:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
        environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, str(Path(__file__).parent / file)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert " passed" in done.stdout, done.stdout

    return run


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Files named interpreted_*.py are collected only by the process that `interpreted` starts."""
    if collection_path.name.startswith("interpreted_") and os.environ.get("TRITON_INTERPRET") != "1":
        return True
    return None

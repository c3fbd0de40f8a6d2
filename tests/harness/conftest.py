"""What the harness' tests share: the surroundings of the commands under test, and the command line in a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment variables of the commands under test: one thread, a cache of their own, no terminal."""
    mine = {
        "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "TERM": "dumb",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in mine.items():
            patch.setenv(name, value)
        yield dict(os.environ)


@pytest.fixture(scope="session")
def harness(surroundings: dict[str, str]) -> Command:
    """`harness(*arguments, cwd=...)`: run the command in a process of its own and wait for it."""

    def run(*arguments: str | Path, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "harness", *map(str, arguments)], cwd=cwd, env=surroundings | more, text=True,
            capture_output=True, timeout=300, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def catalogue(surroundings: dict[str, str]) -> dict[str, dict]:
    """The variants as data, found out once and left in the cache, where commands look before they start a worker."""
    from harness.cases.catalogue import cached

    found = cached([])
    assert found is not None
    return found["attentions"]

"""Kernel tests run three ways: interpreted on the CPU, compiled ahead of time for GPUs that are not there, on a GPU.

Triton decides whether to interpret when a kernel is defined, so the interpreted tests need a process of their own:
`interpreted` runs a file's tests with TRITON_INTERPRET=1, beside the tests of the file that asks for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def _mend_interpreter() -> None:
    """Let Triton 3.6's interpreter run with numpy 2.4 and later.

    It holds a scalar as an array of one element and gives `range` its int(); numpy 2.4 converts arrays without
    dimensions only. Later versions of Triton squeeze the array first, as is done here.
    """
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor: type, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.squeeze()))

    interpreter._patch_lang_tensor = patched


if os.environ.get("TRITON_INTERPRET") == "1":
    _mend_interpreter()


@pytest.fixture(scope="module")
def interpreted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], None]]:
    """For test_x.py: start the tests of interpreted_x.py; the call waits for them and fails with their output."""
    file = HERE / request.path.name.replace("test_", "interpreted_", 1)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", str(file)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    output = tmp_path_factory.mktemp("interpreted") / "output.txt"
    with output.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=HERE.parents[2], env=environment, stdout=stream, stderr=subprocess.STDOUT
        )

    def wait() -> None:
        process.wait()
        assert process.returncode == 0, output.read_text()
        assert " passed" in output.read_text(), output.read_text()

    yield wait
    process.kill()
    process.wait()


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Files named interpreted_*.py are collected only by the process that `interpreted` starts."""
    if collection_path.name.startswith("interpreted_") and os.environ.get("TRITON_INTERPRET") != "1":
        return True
    return None

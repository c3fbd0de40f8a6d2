"""Models of a study: handed over as they are done, none begun too late, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from scripting import load

SCRIPTS = Path(__file__).parents[2] / "scripts"
STUDY = """
import os, sys, time
sys.path.insert(0, {scripts!r})
from studying import as_trained

def train(seconds):
    print(os.getpid(), flush=True)
    time.sleep(seconds)

if __name__ == "__main__":
    list(as_trained([600, 600], train, jobs=2))
"""


@pytest.fixture(scope="module")
def studying() -> ModuleType:
    return load("studying")


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_comes_with_its_result(studying: ModuleType, jobs: int) -> None:
    assert sorted(studying.as_trained([-3, -1, -2], abs, jobs=jobs)) == [(-3, 3), (-2, 2), (-1, 1)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_none_is_begun_too_late(studying: ModuleType, jobs: int) -> None:
    assert list(studying.as_trained([-3, -1], abs, jobs=jobs, minutes=0)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end the processes")
def test_a_killed_study_leaves_no_process_behind(tmp_path: Path) -> None:
    script = tmp_path / "study.py"
    script.write_text(STUDY.format(scripts=str(SCRIPTS)), encoding="utf-8")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as study:
        assert study.stdout is not None
        workers = [int(study.stdout.readline()) for _ in range(2)]
        assert all(_runs(pid) for pid in workers)
        study.send_signal(signal.SIGKILL)
        study.wait()
        deadline = time.monotonic() + 20
        while any(_runs(pid) for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(_runs(pid) for pid in workers)


def _runs(pid: int) -> bool:
    """Whether the process is there, and not only as an entry that nobody has waited for."""
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False

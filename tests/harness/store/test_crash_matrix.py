"""A run and a checkpoint survive a kill at every one of their system calls, and an error of every one of them.

Every call is tried in turn until the work comes to its end. What had been told to be written before the kill is there
afterwards, once; the rest is measured again, and the folder is then the same to the byte.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import making
import pytest
from crashing import killed_at, possible

from harness.errors import Failure, UsageError
from harness.store import runs as store
from harness.store.replacing import replacing
from harness.store.runs import Store

CASES = [making.case(n=n) for n in (64, 128, 256)]
SWEEP = "n = [64, 128, 256]\n"
MOST_CALLS = 2000
Tell = Callable[[bytes], object]

pytestmark = pytest.mark.slow
needs_ptrace = pytest.mark.skipif(not possible(), reason="this system lets no process trace its own child")


def measure(folder: Path, tell: Tell, *, resume: bool) -> None:
    """A whole run, or what is missing of one, telling each case once it is written."""
    with Store.open(folder, metrics=making.METRICS, resume=resume, sweep=SWEEP) as run:
        run.write_json(store.ENVIRONMENT, {"schema": 1, "run_id": "run"})
        for at, case in enumerate(CASES):
            if case.case_id not in run.done:
                failed = case is CASES[1]
                run.append(
                    making.failed(case) if failed else making.rows(case), {} if failed else {"latency": [1.5, 2.5]}
                )
                tell(str(at).encode())
        run.write_json(store.ENVIRONMENT, {"schema": 1, "run_id": "run", "wall_s": 1.5})


def begun(folder: Path) -> bool:
    """As `harness run` knows it: whether there is something to resume."""
    return any((folder / name).exists() for name in (store.SWEEP, store.MEASUREMENTS))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    measure(tmp_path / "whole", lambda text: None, resume=False)
    return content(tmp_path / "whole")


def finished(folder: Path, told: bytes, whole: dict[str, bytes]) -> None:
    """What was told is there, once; and going on gives the whole, with nothing left over."""
    if begun(folder):
        assert store.read_sweep(folder) == SWEEP.encode()  # without it nobody could go on
        with Store.open(folder, metrics=making.METRICS, resume=True) as run:
            assert {CASES[int(chr(at))].case_id for at in told} <= run.done
        rows = store.read(folder)
        assert not rows.duplicated(["case_id", "metric"]).any()
    else:
        assert not told
    measure(folder, lambda text: None, resume=begun(folder))
    left = content(folder)
    assert {name for name in left if name.endswith(".partial")} <= {".sweep.toml.partial", ".environment.json.partial"}
    assert {name: data for name, data in left.items() if name in whole} == whole


@needs_ptrace
def test_a_run_killed_at_any_system_call_loses_nothing_that_was_told(tmp_path: Path, whole: dict[str, bytes]) -> None:
    count = 0
    for count in range(MOST_CALLS):
        folder = tmp_path / f"run{count}"
        told, ended = killed_at(count, lambda tell, folder=folder: measure(folder, tell, resume=False))
        if ended is None:
            break
        assert ended == -9, (count, ended)
        finished(folder, told, whole)
    assert 40 < count < MOST_CALLS
    print(f"{count} system calls of a run, killed at each")


@needs_ptrace
def test_a_resumed_run_killed_at_any_system_call_loses_nothing(tmp_path: Path, whole: dict[str, bytes]) -> None:
    """With a torn line, an incomplete case and samples without rows to mend: what is mended is mended in any order."""
    count = 0
    for count in range(MOST_CALLS):
        folder = tmp_path / f"run{count}"
        folder.mkdir()
        for name, data in whole.items():
            (folder / name).write_bytes(data)
        measurements = whole[store.MEASUREMENTS]
        kept = measurements.index(b"\n", measurements.index(CASES[1].case_id.encode())) + 1  # the second is whole
        (folder / store.MEASUREMENTS).write_bytes(measurements[: kept + 150])
        told, ended = killed_at(count, lambda tell, folder=folder: measure(folder, tell, resume=True))
        if ended is None:
            break
        assert ended == -9, (count, ended)
        with Store.open(folder, metrics=making.METRICS, resume=True) as run:
            assert {case.case_id for case in CASES[:2]} <= run.done
        finished(folder, told, whole)
    assert 20 < count < MOST_CALLS
    print(f"{count} system calls of a resumed run, killed at each")


@needs_ptrace
def test_a_checkpoint_killed_at_any_system_call_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    checkpoint = pytest.importorskip("harness.vision.checkpoint")
    count = 0
    for count in range(MOST_CALLS):
        path = tmp_path / f"{count}" / "last.safetensors"
        checkpoint.save(path, {"model": {"a": torch.zeros(3000)}}, {"step": 1})

        def save(tell: Tell, path: Path = path) -> None:
            checkpoint.save(path, {"model": {"a": torch.ones(3000)}}, {"step": 2})
            tell(b"2")

        told, ended = killed_at(count, save)
        parts, facts = checkpoint.load(path)
        assert facts["step"] == 2 if told else facts["step"] in (1, 2)
        assert set(parts["model"]["a"].tolist()) == {float(facts["step"] - 1)}
        if ended is None:
            break
        assert ended == -9, (count, ended)
    assert 5 < count < MOST_CALLS
    print(f"{count} system calls of a checkpoint, killed at each")


@needs_ptrace
def test_a_replaced_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    count, path = 0, tmp_path / "report.html"
    for count in range(MOST_CALLS):
        path.write_text("old")

        def write(tell: Tell) -> None:
            with replacing(path) as partial:
                partial.write_text("new")
            tell(b"1")

        told, ended = killed_at(count, write)
        assert path.read_text() == "new" if told else path.read_text() in ("old", "new")
        if ended is None:
            break
    assert 5 < count < MOST_CALLS


class Failing:
    """The functions of `os` that change files; the n-th call of all of them fails, and every later one if `ever`."""

    def __init__(self, number: int, code: int, *, ever: bool) -> None:
        self.left, self.code, self.ever = number, code, ever

    def __call__(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            self.left -= 1
            if self.left == -1 or (self.ever and self.left < -1):
                raise OSError(self.code, os.strerror(self.code))
            return real(*given, **named)

        return call


@pytest.mark.parametrize("ever", [False, True], ids=["once", "ever"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE], ids=errno.errorcode.get)
def test_an_error_of_any_call_is_told_and_loses_nothing(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, code: int, ever: bool
) -> None:
    count = 0
    for count in range(MOST_CALLS):
        folder, told = tmp_path / f"run{count}", b""

        def tell(text: bytes) -> None:
            nonlocal told
            told += text

        how = Failing(count, code, ever=ever)
        with monkeypatch.context() as patch:
            for name in ("write", "fsync", "ftruncate", "rename", "replace", "mkdir", "open"):
                patch.setattr(os, name, how(getattr(os, name)))
            try:
                measure(folder, tell, resume=False)
                ended = "whole"
            except (UsageError, Failure) as error:
                ended = str(error)
        if how.left >= 0:
            break
        assert ended == "whole" or "cannot" in ended, ended
        finished(folder, told, whole)
    assert 25 < count < MOST_CALLS

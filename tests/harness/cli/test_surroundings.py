"""Streams that fail and signals that come at a bad moment, as the command line meets them."""

from __future__ import annotations

import errno
import importlib
import io
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import pytest

from harness.cli import _surroundings
from harness.errors import FAILURE, USAGE
from harness.store.rows import RowsLeftOut


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_log_that_is_full_is_given_up_and_output_that_is_full_is_not() -> None:
    log = _surroundings.Heedless(Full())
    print("one", file=log)
    print("two", file=log, flush=True)
    assert log.isatty() is False
    with pytest.raises(_surroundings.OutputLost, match="cannot write to standard output: no space left on the disk"):
        print("x", file=_surroundings.Output(Full()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_no_signal_interrupts_an_import(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An extension that starts up while an exception arrives aborts the process; the signal comes again afterwards."""
    (tmp_path / "slow_import.py").write_text(
        f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(0.2)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow_import", raising=False)
    before = signal.getsignal(number)
    monkeypatch.setattr(signal, "getsignal", lambda each: signal.SIG_DFL)  # pytest's own handler is another

    def interrupted() -> None:
        with _surroundings.signals():
            whole.append(importlib.import_module("slow_import").whole)
            time.sleep(10)

    whole: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert whole == [True]
    signal.signal(number, before)


@pytest.mark.parametrize(
    ("error", "told", "code"),
    [
        (OSError(errno.ENOSPC, "x", "a/b"), "a/b: no space left on the disk", FAILURE),
        (OSError(errno.EROFS, "x", "a"), "a: the disk is read-only", FAILURE),
        (OSError(errno.EDQUOT, "x"), "the disk quota is used up", FAILURE),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission denied", USAGE),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied", FAILURE),
        (OSError(errno.ENAMETOOLONG, "x", "y" * 300), "y" * 100, USAGE),
        (OSError("no number"), "no number", FAILURE),
        (ImportError("libx.so: cannot open: Too many open files"), "too many open files; ulimit -n", FAILURE),
        (MemoryError(), "not enough memory", FAILURE),
    ],
)
def test_each_refusal_has_words_and_a_code(error: BaseException, told: str, code: int) -> None:
    found = _surroundings.refused(error)
    assert found is not None
    assert (found[0].startswith(told), found[1]) == (True, code)
    assert _surroundings.refused(KeyError("x")) is None


def test_a_warning_of_rows_is_a_line_of_ours_once_and_others_stay_python_s(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *where, **more: seen.append(str(message)))
    with _surroundings.streams():
        for _ in range(3):
            warnings.warn("a: 1 of 2 rows left out", RowsLeftOut, stacklevel=1)
        warnings.warn("another", UserWarning, stacklevel=1)
    said = capsys.readouterr().err
    assert said.count("harness: warning: a: 1 of 2 rows left out\n") == 1
    assert seen == ["another"]

"""Who tells how a sweep goes: a bar in a terminal and in a notebook, lines elsewhere, nothing where asked; warnings."""

from __future__ import annotations

import io
from typing import Any

import pytest
from making import CASE, case

from harness.door import bar
from harness.store.record import Reading

OK = [Reading(metric="latency", value=2.0, ci_low=1.9, ci_high=2.1)]


def sweep(listener: Any) -> None:
    listener.begin(2, 0)
    for of in (CASE, case(n=128)):
        listener.start(of)
        listener.finish(of, OK)


def test_lines_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with bar.listening(progress=True) as listener:
        sweep(listener)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == "2 cases"
    assert err.count("2 ms ± 5 %") == 2


def test_nothing_where_asked_but_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with bar.listening(progress=False) as listener:
        sweep(listener)
        with pytest.warns(bar.Warned, match="it drifted") as heard:
            listener.warn("it drifted")
    assert heard[0].filename == __file__
    assert capsys.readouterr() == ("", "")


def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    page = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setattr("sys.stderr", page)
    with bar.listening(progress=True) as listener:
        sweep(listener)
    assert "2/2" in page.getvalue()
    assert "full:reference n=128 forward" in page.getvalue()


def test_a_bar_in_a_notebook_is_text_over_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython.display

    shown: list[str] = []

    class Handle:
        def update(self, text: object) -> None:
            shown.append(repr(text))

    monkeypatch.setattr(bar, "_notebook", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a kernel has it
    monkeypatch.setattr(IPython.display, "display", lambda text, display_id: shown.append(repr(text)) or Handle())
    with bar.listening(progress=True, at_once=False) as listener:
        assert not shown
        sweep(listener)
    assert "starting" in shown[0]
    assert "0/2" in shown[1]
    assert "2/2" in shown[-1]
    assert "\x1b" not in "".join(shown)

"""A bar that tells how a sweep goes: in a terminal and in a notebook; in a pipe or log a line a case. By rich.

with listening(progress=True) as listener: conduct.run(..., listener=listener)
"""

from __future__ import annotations

import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from harness.door.progress import Progress
from harness.store.record import Case, Reading
from harness.sweep.conduct import Listener

NOTEBOOK_COLUMNS, REDRAW_S = 110, 0.5


class Warned(UserWarning):
    """What a sweep warns of: that a machine drifted, that sizes were left out."""


class Bar:
    """A listener of harness.sweep.conduct. show: shows the bar as it is now; None where rich shows it by itself."""

    def __init__(self, bar: Any, show: Callable[[Any], None] | None = None) -> None:
        self.bar, self.show, self.shown = bar, show, 0.0
        self.task, self.open = bar.add_task("starting", total=None), False

    def begun(self) -> None:
        """Show the bar, if it is not yet: something takes time."""
        self.open = True
        if self.show is None:
            self.bar.start()
        self._redraw(at_once=True)

    def warn(self, text: str) -> None:
        """A warning of Python's."""
        _warn(text)

    def begin(self, total: int, done: int, cases: Sequence[Case] = ()) -> None:
        """How many cases there are and how many a resumed run already has."""
        self.begun()
        self.bar.update(self.task, total=total, completed=done, description=f"{total} cases")
        self._redraw(at_once=True)

    def start(self, case: Case) -> None:
        """The case now being measured."""
        size = f"n={case.n}" + (f" m={case.m}" if case.m is not None else "")
        self.bar.update(self.task, description=f"{case.label} {size} {case.phase}")
        self._redraw()

    def finish(self, case: Case, readings: Sequence[Reading]) -> None:
        """One more case is there."""
        self.bar.advance(self.task)
        self._redraw()

    def close(self) -> None:
        """The bar as it ended."""
        self._redraw(at_once=True)
        if self.open and self.show is None:
            self.bar.stop()

    def _redraw(self, *, at_once: bool = False) -> None:
        if self.open and self.show and (at_once or time.monotonic() - self.shown >= REDRAW_S):
            self.shown = time.monotonic()
            self.show(self.bar)


class Quiet(Progress):
    """Lines on stderr, or none; warnings are Python's."""

    def warn(self, text: str) -> None:
        """A warning of Python's."""
        _warn(text)


@contextmanager
def listening(*, progress: bool, at_once: bool = True) -> Iterator[Listener]:
    """The listener that fits where this runs. at_once: show a bar before it is known how many cases there are."""
    notebook = _notebook()
    terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    listener: Bar | Quiet
    if progress and (notebook or terminal):
        listener = Bar(_bar(_console() if notebook else None), Notebook() if notebook else None)
        if at_once:
            listener.begun()
    else:
        listener = Quiet(quiet=not progress)
    try:
        yield listener
    finally:
        listener.close()


def _console() -> Any:
    """One whose text is shown by us: in a notebook rich would show each line by itself."""
    from rich.console import Console

    return Console(
        file=io.StringIO(), width=NOTEBOOK_COLUMNS, color_system=None, force_terminal=False, force_jupyter=False
    )  # fmt: skip


def _bar(console: Any) -> Any:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False), progress.BarColumn(bar_width=30),
        progress.MofNCompleteColumn(), progress.TimeElapsedColumn(), progress.TextColumn("left"),
        progress.TimeRemainingColumn(), console=console or Console(stderr=True),
    )  # fmt: skip


def _notebook() -> bool:
    """Whether an IPython kernel runs this, which shows what it is given."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


class Notebook:
    """Shows a bar as text in the cell's output, over what it showed before; needs no widgets."""

    def __init__(self) -> None:
        self.handle: Any = None

    def __call__(self, bar: Any) -> None:
        """The bar as it is now."""
        from IPython.display import display

        page = _console()
        page.print(bar.get_renderable())
        text = _Text(page.file.getvalue().rstrip())
        if self.handle is None:
            self.handle = display(text, display_id=True)
        else:
            self.handle.update(text)


def _warn(text: str) -> None:
    """Warn at the line of the caller's that is being run, however deep in these packages the reason was met."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "harness":
        level, frame = level + 1, frame.f_back
    warnings.warn(text, Warned, stacklevel=level)


class _Text:
    """Text that a notebook shows as it is."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text

"""Progress of a sweep on stderr: a live line on a terminal, one plain line a case in a pipe or log."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Sequence

from harness.store.contention import reason
from harness.store.naming import Names, brief
from harness.store.record import Case, Reading

SHOWN = "latency"
INDENT = "    "


class Progress:
    """A listener of harness.sweep.conduct that writes to stderr and never to stdout."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.total = self.done = 0
        self.skipped, self.begun, self.cleared = 0, time.monotonic(), True
        self.names, self.told = Names(), set[str]()

    def warn(self, text: str) -> None:
        """A warning, always shown."""
        self._line(f"warning: {text}")

    def begin(self, total: int, done: int, cases: Sequence[Case] = ()) -> None:
        """How many cases there are, how many a resumed run already has, and what all have in common."""
        self.total, self.done, self.skipped, self.begun = total, done, done, time.monotonic()
        self.names, self.told = Names(cases), set[str]()
        if not self.quiet:
            shared = f": {self.names.shared}" if self.names.shared else ""
            self._line(f"{total} cases{f', {done} already measured' if done else ''}{shared}")

    def start(self, case: Case) -> None:
        """The case now being measured; shown on a terminal only."""
        if self.live:
            left = self._eta(", about {} left")
            text = f"[{self.done + 1}/{self.total}{left}] {self.names.of(case)}"  # what is cut is the case's end
            self._write("\r\x1b[K" + text[: columns() - 1])
            self.cleared = False

    def finish(self, case: Case, readings: Sequence[Reading]) -> None:
        """The case's figure, or why it has none."""
        self.done += 1
        if self.quiet:
            return
        first = next((r for r in readings if r.metric == SHOWN), readings[0])
        if first.status != "ok":
            figure = self._failure(case, first)
        elif first.value is None or first.metric != SHOWN:
            figure = "ok"
        else:
            spread = (first.ci_high - first.ci_low) / 2 if first.ci_high is not None and first.ci_low is not None else 0
            percent = 100 * spread / first.value
            figure = f"{first.value:.4g} ms ± {percent:{'.2g' if percent < 99.5 else '.0f'}} %"
            figure += ", contended" if reason(first.note) else ""
        head, left = f"[{self.done}/{self.total}] {self.names.of(case)}:", "" if self.live else self._eta("  ({} left)")
        self._line(f"{head} {figure}{left}", head=head)

    def _failure(self, case: Case, first: Reading) -> str:
        """The status with its reason, which is told once for each variant; all of it stands in the row."""
        told = f"{case.attention} {first.status} {first.note}"
        if told in self.told or not first.note:
            return first.status
        self.told.add(told)
        return f"{first.status}: {brief(first.note)}"

    def close(self) -> None:
        """Leave the cursor on an empty line."""
        if not self.cleared:
            self.cleared = True
            self._write("\r\x1b[K")

    def _eta(self, form: str) -> str:
        """The time left put into `form`; empty while there is nothing to judge it by."""
        measured = self.done - self.skipped
        if not measured or self.done >= self.total:
            return ""
        left = (time.monotonic() - self.begun) / measured * (self.total - self.done)
        return form.format(f"{int(left // 60)}:{int(left % 60):02d}")

    def _line(self, text: str, *, head: str = "") -> None:
        """One line; on a terminal too narrow for it, what follows the head goes below, whole words a line."""
        self.close()
        if self.live and len(text) >= columns():
            first = [head] if head else []
            wide = max(20, columns() - len(INDENT) - 1)
            rest = textwrap.wrap(text[len(head) :].strip(), wide, break_long_words=False, break_on_hyphens=False)
            text = f"\n{INDENT}".join([*first, *rest])
        self._write(text + "\n")

    def _write(self, text: str) -> None:
        """Write to stderr; once it takes no more (nobody reads it, its disk is full), the sweep goes on without."""
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            self.quiet, self.live = True, False


def columns() -> int:
    """The columns of the terminal on stderr; COLUMNS before it, and 80 where it does not tell."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80

"""Peak memory against n, with a cross where a size did not fit."""

from __future__ import annotations

from harness.figures import Run, Sheet
from harness.figures._lines import against_n, first_failures
from harness.store.selection import Frame

SCALES = True  # log or linear, as is wished


def draw(run: Run) -> list[Sheet]:
    """Most bytes alive above the inputs during one call, in MiB."""
    return against_n(run.rows("peak_memory"), run, label="peak memory", notes=_notes)


def _notes(rows: Frame) -> list[str]:
    told = first_failures(rows, "oom")
    first = f"Did not fit: {'; '.join(told[:3])}{'; …' if len(told) > 3 else ''}." if told else ""
    return ["Memory above the inputs, output and gradients included.", first]

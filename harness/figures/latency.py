"""Latency against n: one line a variant, backend and m; panels by phase and dtype; a file a device and shape."""

from __future__ import annotations

from harness.figures import Run, Sheet
from harness.figures._lines import against_n

SCALES = True  # log or linear, as is wished


def draw(run: Run) -> list[Sheet]:
    """The median of one call in ms."""
    return against_n(run.rows("latency"), run, label="latency", notes=lambda rows: [])

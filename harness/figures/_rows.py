"""Panels with a row a variant and m: marks on a value axis, the figure in words at the right edge.

Used where n is no axis: exponents, and runs that hold a single n.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from harness.figures import Sheet
from harness.figures._sheet import Panel, Paper, reference_line, ring
from harness.figures._style import FAINT, LETTER_INCHES, lines_of, log_ticks
from harness.figures._wish import WIDTH
from harness.store.selection import Frame, printable, size

Line = tuple[str, str, int | None]

ROW_INCHES, WORDS_INCHES = 0.235, 0.85
NAME_LETTERS = 28


def value_rows(
    paper: Paper, *, label: str, words: Callable[[float], str], notes: Sequence[str], suffix: str,
    reference: float | None = None,
) -> Sheet:  # fmt: skip
    """The sheet of a run with one n: a mark with its interval a row, `words` of the value beside it."""
    lines = [line[:3] for line in lines_of(paper.rows)]
    panels = paper.panels(height=ROW_INCHES * len(lines) + 0.55, single=1.0)
    ok = paper.rows[paper.rows["status"] == "ok"]
    ends = [*ok["value"], *ok["ci_low"].dropna(), *ok["ci_high"].dropna(), *([reference] if reference else [])]
    ends = [end for end in ends if end > 0]
    low, high = math.log10(min(ends)), math.log10(max(ends))
    room = 0.06 * max(high - low, 0.5)
    for panel in panels:
        if reference:
            reference_line(panel.axes, x=reference)
        for at, line in enumerate(lines):
            _value_row(paper, panel, at, line, words)
        columns = 1 if len(panels) == 1 else max(2, round(paper.width / (panel.inches + 0.55)))
        inches = panel_inches(lines, columns, width=paper.width)
        if paper.run.wish.linear:
            panel.axes.set_xlim(0, with_room(0, 1.06 * 10**high, inches))
        else:
            panel.axes.set_xscale("log")
            panel.axes.set_xlim(10 ** (low - room), 10 ** with_room(low - room, high + room, inches))
            log_ticks(panel.axes.xaxis, 10 ** (low - room), 10 ** (high + room), inches=inches - WORDS_INCHES)
        if panel.bottom:
            panel.axes.set_xlabel(label)
        if panel.left:
            name_rows(panel.axes, lines, paper)
    n = size(int(paper.rows["n"].iloc[0]))
    return paper.finish([f"n = {n}.", *notes], suffix=suffix)


def name_rows(axes: Any, lines: Sequence[Line], paper: Paper) -> None:
    """The names of the rows on the y axis, in their variant's colour, from the top down."""
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_yticks(range(len(lines)), [name_of(line) for line in lines])
    for text, (attention, _, _) in zip(axes.get_yticklabels(), lines, strict=True):
        text.set_color(paper.looks.hues[attention][0])
    axes.grid(visible=False, axis="y")


def name_of(line: Line) -> str:
    """`anchor m=64`."""
    _, series, m = line
    return printable(series, limit=NAME_LETTERS) + (f" m={m}" if m is not None else "")


def panel_inches(lines: Sequence[Line], columns: int, *, width: float = WIDTH) -> float:
    """About how wide each of `columns` panels of a figure is beside the names of the rows."""
    return (width - 0.2 - LETTER_INCHES * max(len(name_of(line)) for line in lines)) / columns - 0.12


def with_room(low: float, high: float, inches: float) -> float:
    """Where an axis from low to high must end to leave room for the words at the right of so wide a panel."""
    return low + (high - low) / (1 - min(0.6, WORDS_INCHES / inches))


def put_words(axes: Any, place: int, words: str, **how: Any) -> None:
    """The figure of a row at the right edge of its panel."""
    axes.text(
        0.985, place, words, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=8, **how
    )  # fmt: skip


def _value_row(paper: Paper, panel: Panel, at: int, line: Line, words: Callable[[float], str]) -> None:
    attention, series, m = line
    own = _of(panel.rows, series, m)
    if own.empty:
        return
    row, look = own.iloc[0], paper.looks.of(attention, series, m)
    if row["status"] != "ok" or not row["value"] > 0:
        put_words(panel.axes, at, str(row["status"]), color=FAINT)
        return
    if row["ci_low"] > 0 and math.isfinite(row["ci_high"]):
        panel.axes.hlines(at, row["ci_low"], row["ci_high"], color=look.color, linewidth=4, alpha=0.4)
    panel.axes.plot([row["value"]], [at], linestyle="none", zorder=3, **look.point(markersize=6))
    ring(panel.axes, [row["value"]], [at], [row["note"]])
    put_words(panel.axes, at, words(row["value"]))


def _of(rows: Frame, series: str, m: int | None) -> Frame:
    return rows[(rows["series"] == series) & (rows["m"].isna() if m is None else rows["m"] == m).fillna(False)]

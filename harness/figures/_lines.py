"""A metric against n: one line a variant, backend and m, its interval as a band, failures as marks at the top."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from harness.figures import Run, Sheet
from harness.figures._sheet import FAILED, Panel, Paper, sheets
from harness.figures._style import Look, lines_of, log_ticks, token_ticks
from harness.selection import size

if TYPE_CHECKING:
    import pandas

STEP = 0.055  # of the panel's height, between two rows of failure marks


def against_n(rows: pandas.DataFrame, run: Run, *, label: str, notes: Callable[[Any], Sequence[str]]) -> list[Sheet]:
    """The sheets of a metric drawn as lines over n, panels by phase and dtype; `notes` gives a sheet's remarks."""
    drawn = []
    for suffix, where, group in sheets(rows):
        paper = Paper(where, group, run)
        marks = failure_rows(group)
        panels = paper.panels()
        for panel in panels:
            for attention, series, m, line in lines_of(panel.rows):
                if (line["status"] == "ok").any():
                    draw_line(panel, paper.looks.of(attention, series, m), line)
                    register(paper, attention, series, m)
            draw_failures(paper, panel, marks)
            if panel.left:
                panel.axes.set_ylabel(label)
        finish_axes(paper, panels, marks=len(marks))
        drawn.append(paper.finish(notes(group), suffix=suffix))
    return drawn


def register(paper: Paper, attention: str, series: str, m: int | None) -> None:
    """Put a drawn line's variant and m in the legend."""
    paper.entry(attention, series)
    if m is not None:
        paper.size_entry(m)


def draw_line(panel: Panel, look: Look, line: pandas.DataFrame) -> None:
    """A line broken where a size has no value; an interval as a band, or as a bar where a point stands alone."""
    x = line["n"].to_numpy(dtype=float)
    y, low, high = (line[name].to_numpy(dtype=float) for name in ("value", "ci_low", "ci_high"))
    y = numpy.where(y > 0, y, math.nan)
    with_interval = (low > 0) & numpy.isfinite(high) & numpy.isfinite(y)
    panel.axes.plot(x, y, **look.line())
    panel.axes.fill_between(
        x, low, high, where=with_interval, color=look.color, alpha=0.22, linewidth=0, zorder=1.6
    )  # fmt: skip
    for place in numpy.flatnonzero(with_interval):
        beside = with_interval[max(0, place - 1) : place + 2]
        if beside.sum() == 1:
            panel.axes.vlines(x[place], low[place], high[place], color=look.color, linewidth=2.5, alpha=0.5)


def failure_rows(rows: pandas.DataFrame) -> list[tuple[str, str]]:
    """(attention, series) of each line that has values somewhere on the sheet and oom, timeout or error elsewhere."""
    good = set(rows.loc[rows["status"] == "ok", "attention"])
    failed = rows[rows["status"].isin(FAILED) & rows["attention"].isin(good)]
    return list(dict.fromkeys((attention, series) for attention, series, _, _ in lines_of(failed)))


def draw_failures(paper: Paper, panel: Panel, marks: Sequence[tuple[str, str]]) -> None:
    """A mark at the top of the panel at each size that failed, one row of marks a variant."""
    for place, (attention, series) in enumerate(marks):
        own = panel.rows[(panel.rows["attention"] == attention) & (panel.rows["series"] == series)]
        for status in FAILED:
            sizes = sorted(set(own.loc[own["status"] == status, "n"]))
            if not sizes:
                continue
            paper.failure_entry(status)
            panel.axes.plot(
                sizes, [0.965 - STEP * min(place, 6)] * len(sizes), linestyle="none", marker=FAILED[status][0],
                markersize=6, markeredgewidth=1.7, color=paper.looks.of(attention, series).color,
                transform=panel.axes.get_xaxis_transform(), clip_on=False,
            )  # fmt: skip


def finish_axes(paper: Paper, panels: Sequence[Panel], *, marks: int = 0, include: float | None = None) -> None:
    """Log axes over the values of all panels, with room at the top for the failure marks."""
    ok = paper.rows[(paper.rows["status"] == "ok") & (paper.rows["value"] > 0)]
    values = [*ok["value"], *([include] if include else [])]
    low, high = min(values), max(values)
    span = max(math.log10(high / low), 0.3)
    top = STEP * min(marks, 7) + 0.05
    for panel in panels:
        axes = panel.axes
        axes.set_yscale("log")
        token_ticks(axes, paper.rows["n"], inches=panel.inches)
        axes.set_ylim(low / 10 ** (span * 0.05), high * 10 ** (span * top / (1 - top)))
        log_ticks(axes.yaxis, *axes.get_ylim())
        if panel.bottom:
            axes.set_xlabel("n (tokens)")


def first_failures(rows: pandas.DataFrame, status: str) -> list[str]:
    """`full n=32k: needs 51.5 GB, 21.9 GB free` for the smallest size of each variant that failed so."""
    failed = rows[rows["status"] == status]
    told = []
    for _, series, m, line in lines_of(failed):
        first = line.iloc[0]
        at = f"{series} n={size(int(first['n']))}" + (f" m={m}" if m is not None else "")
        told.append(f"{at}: {first['note']}" if first["note"] else at)
    return told

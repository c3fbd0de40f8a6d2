"""Whole models against the resolution of their images: latency, multiply-adds and peak memory of one call."""

from __future__ import annotations

import math
from typing import Any

import pandas

from harness.figures import Run, Sheet, Skip
from harness.figures._lines import INTERVAL, draw_failures, draw_lines, failure_rows
from harness.figures._sheet import Panel, Paper, brief, sheets
from harness.figures._style import lines_of, log_ticks, token_ticks
from harness.store.record import parse_options
from harness.store.selection import PANEL, Frame, metric_rows

METRICS = {"latency": ("latency (ms)", 1.0), "flops": ("GMAC", 2e9), "peak_memory": ("peak memory (MiB)", 1.0)}
HEIGHT, ROOM = 2.75, 0.07  # of the panels in inches; of a panel's height above the values, beside the failures' marks


def draw(run: Run) -> list[Sheet]:
    """A file a phase and dtype; a panel a metric, n replaced by the side of the images in pixels."""
    frame = run.frame[run.frame["scope"].map(lambda scope: scope.startswith("model"))]
    sides = [parse_options(text).get("resolution", "") for text in frame["options"]]
    frame = frame.assign(n=[int(side) if side.isdecimal() else 0 for side in sides])
    frame = frame[frame["n"] > 0]
    if frame.empty:
        raise Skip("the run holds no whole models: --scope model measures them")
    if frame["n"].nunique() == 1:
        raise Skip("there is only one resolution")
    rows: Frame = pandas.concat([_scaled(metric_rows(frame, metric), metric) for metric in METRICS])
    return [_sheet(run, suffix, where, group) for suffix, where, group in sheets(rows, by=PANEL)]


def _scaled(rows: Frame, metric: str) -> Frame:
    """The rows in the panel's unit."""
    rows = rows.copy()
    for name in ("value", "ci_low", "ci_high"):
        rows[name] /= METRICS[metric][1]
    return rows


def _sheet(run: Run, suffix: str, where: dict[str, Any], rows: Frame) -> Sheet:
    ok = rows[rows["status"] == "ok"]
    shown = [metric for metric in METRICS if (ok["metric"] == metric).any()]
    paper = Paper(where, rows, run)
    grid = paper.grid(1, len(shown), tall=HEIGHT)
    order = [line[:3] for line in lines_of(ok)]
    inches = paper.width / len(shown) - 0.75
    for column, metric in enumerate(shown):
        own = rows[rows["metric"] == metric]
        panel = Panel(grid[0, column], own, where, inches, column == 0, True)
        marks = failure_rows(own)
        draw_lines(paper, panel, order)
        draw_failures(paper, panel, marks)
        _axes(panel, rows["n"], marks=len(marks))
        panel.axes.set_title(METRICS[metric][0], fontweight="bold", pad=4)
    told = _first_failures(rows[(rows["metric"] == shown[0]) & (rows["status"] == "oom")])
    notes = [
        "Square images, each 16 × 16 pixels a token.",
        INTERVAL if ok["ci_low"].notna().any() else "",
        "GMAC: 10⁹ multiply-adds, of 2 FLOP each." if "flops" in shown else "",
        f"Did not fit: {'; '.join(told[:3])}{'; …' if len(told) > 3 else ''}." if told else "",
    ]
    return paper.finish(notes, suffix=suffix)


def _first_failures(rows: Frame) -> list[str]:
    """`full at 1792: needs 15.2 GB, 9.6 GB free` for the smallest images of each variant that did not fit."""
    firsts = [(series, line.iloc[0]) for _, series, _, line in lines_of(rows)]
    return [f"{series} at {int(first['n'])}: {brief(first['note'])}" for series, first in firsts]


def _axes(panel: Panel, sides: Any, *, marks: int) -> None:
    """Log axes over this panel's own values, with room for the failures' marks; every resolution in full."""
    ok = panel.ok[panel.ok["value"] > 0]
    values = [v for v in (*ok["value"], *ok["ci_low"], *ok["ci_high"]) if v > 0 and math.isfinite(v)]
    low, high = min(values), max(values)
    span = max(math.log10(high / low), 0.3)
    panel.axes.set_yscale("log")
    token_ticks(panel.axes, sides, inches=panel.inches)
    top = 0.055 * min(marks, 7) + ROOM
    panel.axes.set_ylim(low / 10 ** (span * ROOM), high * 10 ** (span * top / (1 - top)))
    log_ticks(panel.axes.yaxis, low / 10 ** (span * ROOM), high * 10 ** (span * ROOM), inches=2.0)
    panel.axes.set_xlabel("side of the images (pixels)")

"""Any metric against any axis or metric: `harness plot --x m --y peak_memory`; panels by phase and dtype.

A line is a variant and what its cases share beside x: its m, its n. Variants without an m are level lines where x is m.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas

from harness.figures import Run, Sheet, Skip
from harness.figures._lines import INTERVAL
from harness.figures._sheet import Panel, Paper, ring, sheets
from harness.figures._style import log_ticks, token_ticks
from harness.figures._wish import AXES
from harness.store.selection import Frame, size, sort_key

SCALES = True
APART = 0.045  # of a panel's height, between two words on one side
NAMES = {"n": "n (tokens)", "m": "m", "batch": "batch", "heads": "heads", "head_dim": "head dimension"}


@dataclass(frozen=True)
class Words:
    """A word beside a line: where (x: None for a level line) and in which colour."""

    x: float | None
    y: float
    text: str
    color: Any


def draw(run: Run) -> list[Sheet]:
    """The sheets of run.wish.y over run.wish.x. Raises Skip where no case has both."""
    x, y = run.wish.x, run.wish.y
    rows = run.rows(y)
    rows = rows.assign(x=rows[AXES[x]].astype(float) if x in AXES else _values(run, rows, x))
    good = rows["status"] == "ok"
    if not (good & (rows["value"] > 0) & (rows["x"] > 0)).any():
        raise Skip(f"no case has {y} and {x} above zero")
    unit = {metric: str(group["unit"].iloc[0]) for metric, group in run.frame.groupby("metric")}
    drawn = []
    for suffix, where, group in sheets(rows, without=AXES.get(x, "")):
        paper = Paper(where, group, run)
        panels = paper.panels()
        said = [(panel, words) for panel in panels for words in _lines(paper, panel, x)]
        _axes(paper, panels, x, label_x=NAMES.get(x) or _label(x, unit), label_y=_label(y, unit))
        _say(said)
        told = INTERVAL if group["ci_low"].notna().any() else ""
        drawn.append(paper.finish([told, *_level(group, x)], suffix=suffix))
    return drawn


def _values(run: Run, rows: Frame, metric: str) -> Any:
    """The value of another metric of each row's case; missing where it has none."""
    other = run.rows(metric)
    known = {(row.machine, row.case_id): row.value for row in other.itertuples() if row.status == "ok"}
    keys = zip(rows["machine"], rows["case_id"], strict=True)
    return pandas.Series([known.get(key) for key in keys], index=rows.index, dtype=float)


def _lines(paper: Paper, panel: Panel, x: str) -> list[Words]:
    """Draw the lines of a panel; the words that belong to them."""
    words: list[Words] = []
    ok = panel.ok
    ok = ok[ok["value"] > 0]
    several = ok["n"].nunique() > 1 and x != "n"
    for (attention, series, m, n), line in _groups(ok, x):
        look = paper.looks.of(attention, series, m)
        paper.entry(attention, series)
        if m is not None:
            paper.size_entry(m)
        if x == "m" and line["m"].isna().all():
            for row in line.itertuples():
                panel.axes.axhline(row.value, color=look.color, linewidth=1.2, linestyle=(0, (5, 2)), zorder=1.5)
                words.append(
                    Words(None, row.value, f"{series} n={size(int(row.n))}" if several else series, look.color)
                )
            continue
        line = line[line["x"] > 0].sort_values("n" if x not in AXES else "x", kind="stable")
        panel.axes.plot(line["x"], line["value"], **look.line(markersize=5))
        for row in line.itertuples():
            if row.ci_low > 0:
                panel.axes.vlines(row.x, row.ci_low, row.ci_high, color=look.color, linewidth=2.5, alpha=0.4)
        ring(panel.axes, line["x"], line["value"], line["note"])
        if several and x in AXES and len(line):
            last = line.iloc[-1]
            words.append(Words(last["x"], last["value"], f"n={size(int(n or last['n']))}", look.color))
    return words


def _groups(rows: Frame, x: str) -> Iterator[tuple[tuple[str, str, int | None, int | None], Frame]]:
    """The rows of each line, exact variants first: by m unless that is x, by n where x is another axis."""
    m = pandas.Series(-1, index=rows.index) if x == "m" else rows["m"].fillna(-1)
    n = rows["n"] if x in AXES and x != "n" else pandas.Series(-1, index=rows.index)
    if x == "m":
        n = n.where(rows["m"].notna(), -1)  # level lines: one group a variant
    found = rows.groupby([rows["attention"], rows["series"], m, n])
    keyed = [
        ((str(a), str(s), None if m < 0 else int(m), None if n < 0 else int(n)), own) for (a, s, m, n), own in found
    ]
    yield from sorted(keyed, key=lambda pair: (*sort_key(*pair[0][:3]), pair[0][3] or -1))


def _say(said: Sequence[tuple[Panel, Words]]) -> None:
    """The words at the ends of lines, and of level lines at the left edge; none that would lie on another."""
    taken: dict[tuple[int, bool], list[float]] = {}
    for panel, words in said:
        axes = panel.axes
        level = words.x is None
        place = axes.transAxes.inverted().transform(axes.transData.transform((words.x or 1.0, words.y)))[1]
        others = taken.setdefault((id(axes), level), [])
        if any(abs(place - other) < APART for other in others) or not 0 <= place <= 1:
            continue
        others.append(place)
        axes.annotate(
            words.text, (0 if level else words.x, words.y), xytext=(3 if level else 5, 2 if level else -2.5),
            xycoords=axes.get_yaxis_transform() if level else axes.transData, textcoords="offset points", fontsize=7,
            color=words.color, ha="left", va="bottom",
        )  # fmt: skip


def _axes(paper: Paper, panels: list[Panel], x: str, *, label_x: str, label_y: str) -> None:
    """The same axes for all panels: sizes doubling, values by the wished scale."""
    ok = paper.rows[(paper.rows["status"] == "ok") & (paper.rows["value"] > 0)]
    xs, ys = ok.loc[ok["x"] > 0, "x"], [*ok["value"], *ok["ci_low"], *ok["ci_high"]]
    ys = [value for value in ys if value > 0]
    for panel in panels:
        axes = panel.axes
        if x in AXES:
            token_ticks(axes, xs, inches=panel.inches)
            axes.set_xlim(axes.get_xlim()[0], axes.get_xlim()[1] * 1.25)  # room for the words at the ends of lines
        elif not paper.run.wish.linear:
            _log(axes.xaxis, axes.set_xscale, axes.set_xlim, list(xs), panel.inches)
        if not paper.run.wish.linear:
            _log(axes.yaxis, axes.set_yscale, axes.set_ylim, ys, 2.0)
        else:
            axes.set_ylim(0, max(ys) * 1.08)
        if panel.left:
            axes.set_ylabel(label_y)
        if panel.bottom:
            axes.set_xlabel(label_x)


def _log(axis: Any, set_scale: Any, set_limits: Any, values: list[float], inches: float) -> None:
    low, high = min(values) / 1.15, max(values) * 1.15
    set_scale("log")
    set_limits(low, high)
    log_ticks(axis, low, high, inches=inches)


def _label(metric: str, units: dict[str, str]) -> str:
    unit = units.get(metric, "1")
    return metric.replace("_", " ") + (f" ({unit})" if unit not in ("", "1") else "")


def _level(rows: Frame, x: str) -> list[str]:
    """That level lines are variants without an m."""
    without = x == "m" and (rows["m"].isna() & (rows["status"] == "ok")).any()
    return ["Level dashed lines: variants without an m."] if without else []

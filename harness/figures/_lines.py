"""A metric against n: one line a variant, backend and m, its interval as a band, failures as marks at the worst end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy

from harness.figures import Run, Sheet
from harness.figures._rows import value_rows
from harness.figures._sheet import FAILED, Panel, Paper, brief, faint, reference_line, ring, sheets
from harness.figures._style import Look, lines_of, log_ticks, short, token_ticks
from harness.store.selection import Frame, size, usual

INTERVAL = "Medians with 95\u00a0% intervals."
BASES = ("flash", "full")
DEEPEST_MARK, TOP_MARK, DEEPEST_WIDTH = 6.6, 4.4, 1.6
STEP = 0.055  # of the panel's height, between two rows of failure marks


def against_n(rows: Frame, run: Run, *, label: str, notes: Callable[[Any], Sequence[str]]) -> list[Sheet]:
    """The sheets of a metric over n, panels by phase and dtype; `label` lacks the unit, `notes` gives remarks."""
    drawn = []
    for suffix, where, group in sheets(rows):
        told = [INTERVAL if group["ci_low"].notna().any() else "", *notes(group)]
        paper, unit = Paper(where, group, run), group["unit"].iloc[0]
        words = partial(_with_unit, unit=unit)
        drawn.append(sheet_over_n(paper, label=f"{label} ({unit})", notes=told, suffix=suffix, words=words))
    return drawn


def sheet_over_n(
    paper: Paper, *, label: str, notes: Sequence[str], suffix: str, words: Callable[[float], str] = short,
    reference: float | None = None, remark: Callable[[Frame], str] | None = None, more_is_better: bool = False,
) -> Sheet:  # fmt: skip
    """The paper's rows as lines over n, or as rows of marks where it holds one n only.

    words: a value as text; reference: a value to draw a line at; remark: what to say inside a panel of such rows;
    more_is_better: failures are marked at the bottom.
    """
    if paper.rows["n"].nunique() == 1:
        return value_rows(paper, label=label, words=words, notes=notes, suffix=suffix, reference=reference)
    marks = failure_rows(paper.rows)
    panels = paper.panels()
    order = [line[:3] for line in lines_of(paper.rows[paper.rows["status"] == "ok"])]
    for panel in panels:
        reference_line(panel.axes, y=reference)
        draw_lines(paper, panel, order)
        draw_failures(paper, panel, marks, low=more_is_better)
        if remark:
            faint(panel.axes, 0.02, 0.93 if more_is_better else 0.03, remark(panel.rows))
        if panel.left:
            panel.axes.set_ylabel(label)
    finish_axes(paper, panels, marks=len(marks), low_marks=more_is_better, include=reference)
    hollow = list(dict.fromkeys(filter(None, (switch_note(panel.rows) for panel in panels))))
    return paper.finish([*notes, *hollow], suffix=suffix)


def _with_unit(value: float, *, unit: str) -> str:
    return f"{short(value)} {unit}"


def register(paper: Paper, attention: str, series: str, m: int | None) -> None:
    """Put a drawn line's variant and m in the legend."""
    paper.entry(attention, series)
    if m is not None:
        paper.size_entry(m)


def draw_lines(paper: Paper, panel: Panel, order: Sequence[tuple[str, str, int | None]]) -> None:
    """Every line of a panel that has a value, with its entry in the legend. order: all lines of the sheet."""
    for attention, series, m, line in lines_of(panel.rows):
        if (line["status"] == "ok").any():
            depth = order.index((attention, series, m)) / max(1, len(order) - 1)
            draw_line(panel, paper.looks.of(attention, series, m), line, depth=depth)
            register(paper, attention, series, m)


def draw_line(panel: Panel, look: Look, line: Frame, *, depth: float = 1.0) -> None:
    """A line broken where a size has no value; an interval as a band, or as a bar where a point stands alone.

    depth: 0 for the first line of a panel, 1 for the last; what lies deeper is larger, so that equal lines all show.
    """
    x = line["n"].to_numpy(dtype=float)
    y, low, high = (line[name].to_numpy(dtype=float) for name in ("value", "ci_low", "ci_high"))
    y = numpy.where(y > 0, y, math.nan)
    with_interval = (low > 0) & numpy.isfinite(high) & numpy.isfinite(y)
    scale = min(1.0, 0.4 + panel.inches / 5)
    style = look.line(markersize=scale * (DEEPEST_MARK + (TOP_MARK - DEEPEST_MARK) * depth))
    style["linewidth"] = scale * look.width * (DEEPEST_WIDTH + (1 - DEEPEST_WIDTH) * depth)
    panel.axes.plot(x, y, **style)
    switched = switches(line)
    if switched.any():
        hollow = {**look.point(markersize=style["markersize"]), "markerfacecolor": "white", "markeredgewidth": 1.3}
        hollow |= {"fillstyle": "full", "markeredgecolor": look.color, "zorder": 3.2}
        panel.axes.plot(x[switched], y[switched], linestyle="none", **hollow)
    ring(panel.axes, x, y, line["note"])
    panel.axes.fill_between(
        x, low, high, where=with_interval, color=look.color, alpha=0.22, linewidth=0, zorder=1.6
    )  # fmt: skip
    for place in numpy.flatnonzero(with_interval):
        beside = with_interval[max(0, place - 1) : place + 2]
        if beside.sum() == 1:
            panel.axes.vlines(x[place], low[place], high[place], color=look.color, linewidth=2.5, alpha=0.5)


def switches(line: Frame) -> numpy.ndarray:
    """Which points of a line are by another backend than most: the bare name takes what is best at each size."""
    ok = (line["status"] == "ok").to_numpy()
    backends = list(line.loc[ok, "backend"])
    return ok & (line["backend"] != usual(backends)).to_numpy() if backends else ok


def switch_note(rows: Frame) -> str:
    """`Hollow marks: another backend (anchor m=256: chunked from n=16k).` for the lines that hold such points."""
    told = []
    for _, series, m, line in lines_of(rows):
        for backend, own in line[switches(line)].groupby("backend"):
            places = ", ".join(size(int(n)) for n in sorted(set(own["n"])))
            told.append(f"{series}{f' m={m}' if m is not None else ''}: {backend} at n={places}")
    told = list(dict.fromkeys(told))
    return f"Hollow marks: another backend ({'; '.join(told[:3])}{'; …' if len(told) > 3 else ''})." if told else ""


def failure_rows(rows: Frame) -> list[tuple[str, str]]:
    """(attention, series) of each line that has values somewhere on the sheet and oom, timeout or error elsewhere."""
    good = set(rows.loc[rows["status"] == "ok", "attention"])
    failed = rows[rows["status"].isin(FAILED) & rows["attention"].isin(good)]
    return list(dict.fromkeys((attention, series) for attention, series, _, _ in lines_of(failed)))


def draw_failures(paper: Paper, panel: Panel, marks: Sequence[tuple[str, str]], *, low: bool = False) -> None:
    """A mark at the top of the panel (low: the bottom) at each size that failed, one row of marks a variant."""
    for place, (attention, series) in enumerate(marks):
        own = panel.rows[(panel.rows["attention"] == attention) & (panel.rows["series"] == series)]
        for status in FAILED:
            sizes = sorted(set(own.loc[own["status"] == status, "n"]))
            if not sizes:
                continue
            paper.failure_entry(status)
            inward = 0.035 + STEP * min(place, 6)
            panel.axes.plot(
                sizes, [inward if low else 1 - inward] * len(sizes), linestyle="none", marker=FAILED[status][0],
                markersize=6, markeredgewidth=1.7, color=paper.looks.of(attention, series).color,
                transform=panel.axes.get_xaxis_transform(), clip_on=False,
            )  # fmt: skip


def finish_axes(
    paper: Paper, panels: Sequence[Panel], *, marks: int = 0, low_marks: bool = False, include: float | None = None
) -> None:  # fmt: skip
    """Axes over the values of all panels, with room at the top, or the bottom, for the failure marks."""
    ok = paper.rows[(paper.rows["status"] == "ok") & (paper.rows["value"] > 0)]
    values = [*ok["value"], *ok["ci_low"], *ok["ci_high"], *([include] if include else [])]
    values = [value for value in values if value > 0 and math.isfinite(value)]
    low, high = min(values), max(values)
    span = max(math.log10(high / low), 0.3)
    room = STEP * min(marks, 7) + 0.05
    top, below = (0.05, room) if low_marks else (room, 0.05)
    share = 1 - top - below
    for panel in panels:
        axes = panel.axes
        token_ticks(axes, paper.rows["n"], inches=panel.inches)
        if paper.run.wish.linear:
            axes.set_ylim(-high * below / share if low_marks else 0, high * (1 + top / share))
        else:
            axes.set_yscale("log")
            axes.set_ylim(low / 10 ** (span * below / share), high * 10 ** (span * top / share))
            log_ticks(axes.yaxis, low / 10 ** (span * 0.05), high * 10 ** (span * 0.05), inches=2.0)
        if panel.bottom:
            axes.set_xlabel("n (tokens)")


def base_of(ok: Frame) -> str | None:
    """The flash series, else the full one, with the most sizes; the fastest on the whole among equals."""
    for attention in BASES:
        own = ok[(ok["attention"] == attention) & (ok["value"] > 0)]
        if len(own):
            ranks = {
                str(series): (-group["n"].nunique(), numpy.log(group["value"].to_numpy(float)).sum(), series)
                for series, group in own.groupby("series")
            }
            return min(ranks, key=ranks.__getitem__)
    return None


def first_failures(rows: Frame, status: str) -> list[str]:
    """`full n=32k: needs 51.5 GB, 21.9 GB free` for the smallest size of each variant that failed so."""
    failed = rows[rows["status"] == status]
    told = []
    for _, series, m, line in lines_of(failed):
        first = line.iloc[0]
        at = f"{series} n={size(int(first['n']))}" + (f" m={m}" if m is not None else "")
        told.append(f"{at}: {brief(first['note'])}" if first["note"] else at)
    return told

"""Latency against the number of heads of keys (grouped attention) or of keys (cross attention), a panel for each n."""

from __future__ import annotations

import math
from typing import Any

import pandas

from harness.figures import Run, Sheet, Skip
from harness.figures._lines import INTERVAL, draw_failures, draw_lines, failure_rows
from harness.figures._sheet import Panel, Paper, sheets
from harness.figures._style import lines_of, log_ticks, token_ticks
from harness.store import problem
from harness.store.record import canonical_options
from harness.store.selection import PANEL, Frame, size

AXES = {
    "kv_heads": ("h", "heads of keys and values", "Heads of queries share those of keys and values in equal groups."),
    "kv_tokens": ("n", "keys (tokens)", "Keys and values of other tokens; at n they may be its own."),
}
MOST_PANELS, HEIGHT, ROOM = 3, 2.75, 0.07  # of a panel in inches; of its height above the values


def draw(run: Run) -> list[Sheet]:
    """A file for each of the two, and a phase and dtype."""
    rows = run.rows("latency")
    drawn = [sheet for name in AXES for sheet in _of(run, rows, name)]
    if not drawn:
        raise Skip("there are no two numbers of heads of keys, nor of keys: --kv-heads and --kv-tokens are axes")
    return drawn


def _of(run: Run, rows: Frame, name: str) -> list[Sheet]:
    """The sheets along one of the two, all else alike."""
    default, label, told = AXES[name]
    held = rows["problem"].unique()
    own: Any = pandas.to_numeric(rows["problem"].map({text: problem.number(text, name) for text in held}))
    rest = {text: problem.told(canonical_options(_without(problem.parts_of(text), name))) for text in held}
    x = own.fillna(rows[default].astype(float)).astype(int)
    rows = rows.assign(problem=rows["problem"].map(rest), tokens=rows["n"], n=x, given=own.notna())
    found = []
    for suffix, where, group in sheets(rows, by=PANEL):
        ok = group[group["status"] == "ok"]
        sizes = [n for n in sorted(set(ok["tokens"])) if ok.loc[ok["tokens"] == n, "n"].nunique() > 1]
        if sizes and group["given"].any():
            ending = "-".join(filter(None, [name, suffix]))
            found.append(_sheet(Paper(where, group, run), _few(sizes), label, [told, INTERVAL], ending))
    return found


def _sheet(paper: Paper, sizes: list[int], label: str, notes: list[str], suffix: str) -> Sheet:
    rows = paper.rows
    grid = paper.grid(1, len(sizes), tall=HEIGHT, sharey=True)
    order = [line[:3] for line in lines_of(rows[rows["status"] == "ok"])]
    marks = failure_rows(rows)
    for column, n in enumerate(sizes):
        own = rows[rows["tokens"] == n]
        panel = Panel(grid[0, column], own, paper.where, paper.width / len(sizes) - 0.6, column == 0, True)
        draw_lines(paper, panel, order)
        draw_failures(paper, panel, marks)
        panel.axes.set_title(f"n = {size(n)}", fontweight="bold", pad=4)
        panel.axes.set_xlabel(label)
        token_ticks(panel.axes, own["n"], inches=panel.inches)
    _times(grid[0, 0], rows[rows["tokens"].isin(sizes)], marks=len(marks))
    return paper.finish(notes, suffix=suffix)


def _times(axes: Any, rows: Frame, *, marks: int) -> None:
    """One log axis over the values of all panels, with room for the failures' marks."""
    ok = rows[(rows["status"] == "ok") & (rows["value"] > 0)]
    values = [v for v in (*ok["value"], *ok["ci_low"], *ok["ci_high"]) if v > 0 and math.isfinite(v)]
    low, high = min(values), max(values)
    span, top = max(math.log10(high / low), 0.3), 0.055 * min(marks, 7) + ROOM
    axes.set_yscale("log")
    axes.set_ylim(low / 10 ** (span * ROOM), high * 10 ** (span * top / (1 - top)))
    log_ticks(axes.yaxis, low / 10 ** (span * ROOM), high * 10 ** (span * ROOM), inches=2.0)
    axes.set_ylabel("latency (ms)")


def _few(sizes: list[int]) -> list[int]:
    """The first, a middle and the last of many."""
    return sizes if len(sizes) <= MOST_PANELS else [sizes[0], sizes[len(sizes) // 2], sizes[-1]]


def _without(parts: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in parts.items() if key != name}

"""Error against latency: what the time buys. Approximation and numeric error in panels of their own, never mixed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas

from harness.figures import Run, Sheet, Skip
from harness.figures._lines import register
from harness.figures._sheet import Paper, sheets
from harness.figures._style import lines_of, log_ticks
from harness.store.selection import PANEL, Frame, metric_rows, printable, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRICS = {
    "approximation_error": "approximation error\n(against full)",
    "numeric_error": "numeric error\n(against float64)",
}
MOST_SIZES = 3
SMALLEST_MARK, LARGEST_MARK = 4.0, 9.0
ROUNDING = 0.02  # below this an error is rounding, where a run does not tell which variants are exact


def draw(run: Run) -> list[Sheet]:
    """A file a phase and dtype; a row of panels a metric, a panel a token count (three at most)."""
    latency = metric_rows(run.frame, "latency")
    latency = latency[latency["status"] == "ok"].set_index(["machine", "case_id"])
    found = []
    for metric in METRICS:
        rows = metric_rows(run.frame, metric)
        at = pandas.MultiIndex.from_frame(rows[["machine", "case_id"]])
        for name in ("value", "ci_low", "ci_high"):
            rows[f"latency_{name}"] = latency[name].reindex(at).to_numpy()
        found.append(rows[rows["latency_value"].notna() | (rows["status"] != "ok")])
    rows: Frame = pandas.concat(found)
    if not (rows["value"] > 0).any():  # failed rows have no value
        raise Skip("no approximation_error or numeric_error above zero with a latency beside it")
    drawn = (_sheet(run, suffix, where, group) for suffix, where, group in sheets(rows, by=PANEL))
    return [sheet for sheet in drawn if sheet is not None]


def _sheet(run: Run, suffix: str, where: dict[str, Any], rows: Frame) -> Sheet | None:
    rows = rows.assign(exact=(rows["metric"] == "approximation_error") & (rows["status"] == "ok") & _exact(run, rows))
    everything = rows
    zero, rows = rows[(rows["value"] <= 0) & ~rows["exact"]], rows[(rows["value"] > 0) | rows["exact"]]
    metrics = [metric for metric in METRICS if (rows["metric"] == metric).any()]
    if not metrics:
        return None
    sizes = _sizes(rows)
    paper = Paper(where, everything, run)
    grid = paper.grid(len(metrics), len(sizes), tall=2.3 * len(metrics) + 0.2, sharey="row", sharex="col")
    for line, metric in enumerate(metrics):
        for column, n in enumerate(sizes):
            axes = grid[line, column]
            _panel(paper, axes, rows[(rows["metric"] == metric) & (rows["n"] == n)])
            if line == 0:
                axes.set_title(f"n = {size(n)}", fontweight="bold", pad=4)
            if line == len(metrics) - 1:
                axes.set_xlabel("latency (ms)")
        own = rows[(rows["metric"] == metric) & rows["n"].isin(sizes)]
        own = own if own["exact"].all() else own[~own["exact"]]
        _log(grid[line, 0].yaxis, own["value"], "y", grid[line, 0])
        grid[line, 0].set_ylabel(METRICS[metric])
    for column, n in enumerate(sizes):
        times = rows.loc[rows["n"] == n, ["latency_value", "latency_ci_low", "latency_ci_high"]].to_numpy(float).ravel()
        _log(grid[-1, column].xaxis, times, "x", grid[-1, column], columns=len(sizes))
    measured = len(set(rows["n"]))
    notes = [
        "Medians with 95\u00a0% intervals of latency.",
        f"{len(sizes)} of {measured} token counts are shown." if len(sizes) < measured else "",
        "Larger mark: larger m. Lower left is better.",
        "Vertical lines: exact variants (their error is rounding)." if rows["exact"].any() else "",
        f"Error exactly 0, not on a log axis: {', '.join(map(printable, sorted(set(zero['series']))))}."
        if len(zero) else "",
    ]  # fmt: skip
    return paper.finish(notes, suffix=suffix)


def _exact(run: Run, rows: Frame) -> Any:
    """Which rows are of exact variants: as the run tells, else those whose error is rounding."""
    told = run.environment.get("kinds")
    if isinstance(told, dict) and told:
        return rows["attention"].map(told) == "exact"
    return rows["m"].isna() & (rows["value"] < ROUNDING)


def _panel(paper: Paper, axes: Axes, rows: Frame) -> None:
    """One line a variant through its m, from small to large; exact variants as lines at their latency."""
    chains: dict[tuple[str, str], list[Any]] = {}
    for attention, series, m, line in lines_of(rows):
        register(paper, attention, series, None)
        row = line.iloc[0]
        if row["exact"]:
            look = paper.looks.of(attention, series)
            axes.axvline(row["latency_value"], color=look.color, linewidth=1.4, alpha=0.85, zorder=1.7)
            axes.plot(
                [row["latency_value"]], [0.0], transform=axes.get_xaxis_transform(), clip_on=False, zorder=4,
                linestyle="none", **look.point(markersize=6),
            )  # fmt: skip
        else:
            chains.setdefault((attention, series), []).append((m, row))
    for (attention, series), points in chains.items():
        look = paper.looks.of(attention, series)
        x, y = [row["latency_value"] for _, row in points], [row["value"] for _, row in points]
        axes.plot(x, y, color=look.color, linewidth=1.1, alpha=0.8)
        for (m, row), at_x, at_y in zip(points, x, y, strict=True):
            axes.plot([at_x], [at_y], linestyle="none", zorder=3, **look.point(markersize=_mark(paper, m)))
            axes.hlines(at_y, row["latency_ci_low"], row["latency_ci_high"], color=look.color, linewidth=2.2, alpha=0.5)
            if row["ci_low"] > 0:
                axes.vlines(at_x, row["ci_low"], row["ci_high"], color=look.color, linewidth=2.2, alpha=0.5)


def _mark(paper: Paper, m: int | None) -> float:
    sizes = paper.looks.sizes
    if m is None or len(sizes) < 2:
        return 6.0
    return SMALLEST_MARK + (LARGEST_MARK - SMALLEST_MARK) * sizes.index(m) / (len(sizes) - 1)


def _sizes(rows: Frame) -> list[int]:
    """At most three token counts, those that hold the most variants first; all of them where there are few."""
    held = rows.groupby("n")["series"].nunique()
    full = sorted(int(n) for n in held.index if held[n] == held.max())
    everything = sorted(int(n) for n in held.index)
    if len(everything) <= MOST_SIZES:
        return everything
    middle = min(full, key=lambda n: abs(math.log(n * n / (full[0] * full[-1]))))
    return sorted({full[0], middle, everything[-1]})


def _log(axis: Any, values: Any, which: str, axes: Axes, columns: int = 3) -> None:
    """A log axis around the values with room at both ends."""
    values = values[values > 0]  # without the missing ones, too
    low, high = float(values.min()), float(values.max())
    room = max((high / low) ** 0.12, 1.25)
    getattr(axes, f"set_{which}scale")("log")
    getattr(axes, f"set_{which}lim")(low / room, high * room)
    figure: Any = axes.get_figure(root=True)
    wide = figure.get_figwidth() / columns - 0.5
    log_ticks(axis, low / room, high * room, inches=wide if which == "x" else 1.9)

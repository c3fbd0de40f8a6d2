"""Scaling: the exponent of n measured in latency, FLOPs and peak memory, beside the one that the variant declares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas

from harness import stats
from harness.figures import Run, Sheet, Skip
from harness.figures._rows import ROW_INCHES, Line, name_rows, panel_inches, put_words, with_room
from harness.figures._sheet import Paper, sheets
from harness.figures._style import INK, Look, lines_of
from harness.store.selection import PANEL, Frame, metric_rows

METRICS = {"latency": ("latency", "flops_n"), "flops": ("FLOPs", "flops_n"), "peak_memory": ("peak memory", "peak_n")}
FEWEST = 3
LIMIT = "n\u00a0≫\u00a0m\u00a0≫\u00a0d"


@dataclass(frozen=True)
class Fit:
    """One exponent and what was declared for it (None where nothing was)."""

    law: stats.PowerLaw
    declared: float | None


def draw(run: Run) -> list[Sheet]:
    """A file a phase and dtype; a panel a metric, a row a variant and m."""
    rows: Frame = pandas.concat([metric_rows(run.frame, metric) for metric in METRICS])
    drawn = []
    for suffix, where, group in sheets(rows, by=PANEL):
        fits = _fits(run, group)
        if fits:
            drawn.append(_sheet(run, suffix, where, group, fits))
    if not drawn:
        raise Skip("no variant has a value at two or more token counts")
    return drawn


def _fits(run: Run, rows: Frame) -> dict[Line, dict[str, Fit]]:
    """Line → metric → fit, in the order of the figure."""
    found: dict[Line, dict[str, Fit]] = {}
    for attention, series, m, own in lines_of(rows):
        for metric, (_, key) in METRICS.items():
            line = own[(own["metric"] == metric) & (own["status"] == "ok") & (own["value"] > 0)]
            line = _of_one_backend(line.drop_duplicates("n").sort_values("n"))
            line = line.tail(max(FEWEST, math.ceil(len(line) / 2)))
            if len(line) > 1:
                law = stats.power_law(line["n"].astype(float), line["value"])
                found.setdefault((attention, series, m), {})[metric] = Fit(law, _declared(run, attention, key))
    return found


def _of_one_backend(line: Frame) -> Frame:
    """The rows of the backend with the most sizes, of two the one that goes further: a switch is no growth."""
    sizes = line.groupby("backend")["n"].agg(["count", "max"])
    return line if len(sizes) < 2 else line[line["backend"] == sizes.sort_values(["count", "max"]).index[-1]]


def _declared(run: Run, attention: str, key: str) -> float | None:
    table = run.environment.get("declared")
    own = table.get(attention) if isinstance(table, dict) else None
    value = own.get(key) if isinstance(own, dict) else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _sheet(run: Run, suffix: str, where: dict[str, Any], rows: Frame, fits: dict[Line, dict[str, Fit]]) -> Sheet:
    metrics = [metric for metric in METRICS if any(metric in own for own in fits.values())]
    every = [fit for own in fits.values() for fit in own.values()]
    ends = [fit.law.exponent for fit in every] + [fit.declared for fit in every if fit.declared is not None]
    low, high = min(-0.2, min(ends) - 0.2), max(2.2, max(ends) + 0.2)
    lines = list(fits)
    mixed = any(own[own["status"] == "ok"]["backend"].nunique() > 1 for *_, own in lines_of(rows))
    paper = Paper(where, rows, run)
    grid = paper.grid(1, len(metrics), tall=ROW_INCHES * len(fits) + 0.75, sharey=True)
    far = with_room(low, high, panel_inches(lines, len(metrics), width=paper.width))
    for column, metric in enumerate(metrics):
        axes = grid[0, column]
        for place, (line, own) in enumerate(fits.items()):
            if metric in own:
                _mark(axes, place, own[metric], paper.looks.of(*line))
        axes.set_title(METRICS[metric][0], fontweight="bold", pad=4)
        axes.set_xlim(low, far)
        axes.set_xticks(range(math.ceil(low), math.floor(high) + 1))
        axes.set_xlabel("exponent of n")
        axes.grid(visible=False, axis="y")
    name_rows(grid[0, 0], lines, paper)
    declared = f"Dark bars: the exponents that the cost models declare for {LIMIT}"
    declared += "; latency has that of the FLOPs." if "latency" in metrics else "."
    return paper.finish(
        [
            "Marks: fit over the upper half of each line's own n (three sizes or more if measured), ± standard error.",
            *(["A line that changes its backend is fitted where it has the most sizes by one."] if mixed else []),
            declared if any(fit.declared is not None for fit in every) else "No exponents are declared in this run.",
        ],
        suffix=suffix,
    )


def _mark(axes: Any, place: int, fit: Fit, look: Look) -> None:
    """The measured exponent with its error, the declared one as a bar, and the figure in words."""
    error = fit.law.error if math.isfinite(fit.law.error) else 0.0
    if fit.declared is not None:
        axes.vlines(fit.declared, place - 0.42, place + 0.42, color=INK, linewidth=2.2, zorder=2)
    axes.hlines(place, fit.law.exponent - error, fit.law.exponent + error, color=look.color, linewidth=2.0, zorder=2.5)
    axes.plot([fit.law.exponent], [place], linestyle="none", zorder=3, **look.point(markersize=5.5))
    spread = f" ±{fit.law.error:.2f}" if math.isfinite(fit.law.error) else ""
    put_words(axes, place, f"{fit.law.exponent:.2f}{spread}")

"""Scaling: the exponent of n measured in latency, FLOPs and peak memory, beside the one that the variant declares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas

from harness import stats
from harness.figures import Run, Sheet, Skip
from harness.figures._sheet import Paper, sheets
from harness.figures._style import INK, lines_of
from harness.selection import PANEL, metric_rows, printable

METRICS = {"latency": ("latency", "flops_n"), "flops": ("FLOPs", "flops_n"), "peak_memory": ("peak memory", "peak_n")}
FEWEST = 3


@dataclass(frozen=True)
class Fit:
    """One exponent and what was declared for it (None where nothing was)."""

    law: stats.PowerLaw
    declared: float | None


def draw(run: Run) -> list[Sheet]:
    """A file a phase and dtype; a panel a metric, a row a variant and m."""
    rows = pandas.concat([metric_rows(run.frame, metric) for metric in METRICS])
    drawn = []
    for suffix, where, group in sheets(rows, by=PANEL):
        fits = _fits(run, group)
        if fits:
            drawn.append(_sheet(run, suffix, where, group, fits))
    if not drawn:
        raise Skip("no variant has a value at two or more token counts")
    return drawn


def _fits(run: Run, rows: pandas.DataFrame) -> dict[tuple[str, str, int | None], dict[str, Fit]]:
    """(attention, series, m) → metric → fit, in the order of the figure."""
    found: dict[tuple[str, str, int | None], dict[str, Fit]] = {}
    for attention, series, m, own in lines_of(rows):
        for metric, (_, key) in METRICS.items():
            line = own[(own["metric"] == metric) & (own["status"] == "ok") & (own["value"] > 0)]
            line = line.drop_duplicates("n").sort_values("n")
            line = line.tail(max(FEWEST, math.ceil(len(line) / 2)))
            if len(line) > 1:
                law = stats.power_law(line["n"].astype(float), line["value"])
                found.setdefault((attention, series, m), {})[metric] = Fit(law, _declared(run, attention, key))
    return found


def _declared(run: Run, attention: str, key: str) -> float | None:
    table = run.environment.get("declared")
    own = table.get(attention) if isinstance(table, dict) else None
    value = own.get(key) if isinstance(own, dict) else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _sheet(run: Run, suffix: str, where: dict[str, Any], rows: pandas.DataFrame, fits: dict[Any, Any]) -> Sheet:
    metrics = [metric for metric in METRICS if any(metric in own for own in fits.values())]
    every = [fit for own in fits.values() for fit in own.values()]
    ends = [fit.law.exponent for fit in every] + [fit.declared for fit in every if fit.declared is not None]
    low, high = min(-0.2, min(ends) - 0.2), max(2.2, max(ends) + 0.2)
    paper = Paper(where, rows, run)
    grid = paper.grid(1, len(metrics), tall=0.235 * len(fits) + 0.75, sharey=True)
    for column, metric in enumerate(metrics):
        axes = grid[0, column]
        for place, ((attention, series, m), own) in enumerate(fits.items()):
            if metric in own:
                _mark(axes, place, own[metric], paper.looks.of(attention, series, m), high)
        axes.set_title(METRICS[metric][0], fontweight="bold", pad=4)
        axes.set_xlim(low, high + 0.5 * (high - low))
        axes.set_xticks(range(math.ceil(low), math.floor(high) + 1))
        axes.set_xlabel("exponent of n")
        axes.grid(visible=False, axis="y")
    axes = grid[0, 0]
    axes.set_ylim(len(fits) - 0.4, -0.6)
    names = [f"{printable(series, limit=28)}{f' m={m}' if m is not None else ''}" for _, series, m in fits]
    axes.set_yticks(range(len(fits)), names)
    for text, (attention, _, _) in zip(axes.get_yticklabels(), fits, strict=True):
        text.set_color(paper.looks.hues[attention][0])
    return paper.finish(
        [
            "Marks: fit over the upper half of each line's own n (three sizes or more if measured), ± standard error.",
            "Dark bars: declared by the variant for n ≫ m ≫ d"
            + (", latency by its FLOPs." if "latency" in metrics else "."),
            "" if any(fit.declared is not None for fit in every) else "No exponents are declared in this run.",
        ],
        suffix=suffix, interval="",
    )  # fmt: skip


def _mark(axes: Any, place: int, fit: Fit, look: Any, high: float) -> None:
    """The measured exponent with its error, the declared one as a bar, and the figure in words."""
    error = fit.law.error if math.isfinite(fit.law.error) else 0.0
    if fit.declared is not None:
        axes.vlines(fit.declared, place - 0.36, place + 0.36, color=INK, linewidth=2.2, zorder=2)
    axes.hlines(place, fit.law.exponent - error, fit.law.exponent + error, color=look.color, linewidth=2.0, zorder=2.5)
    axes.plot([fit.law.exponent], [place], linestyle="none", zorder=3, **look.point(markersize=5.5))
    spread = f" ±{fit.law.error:.2f}" if math.isfinite(fit.law.error) else ""
    axes.text(high + 0.08, place, f"{fit.law.exponent:.2f}{spread}", va="center", fontsize=8)

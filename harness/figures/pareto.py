"""Pareto: accuracy of trained models against what a call costs, in GMAC and in latency; one file a problem.

A problem is a task on a data set with one model and recipe around the attention. The mark is the mean over seeds, the
bar its 95 % interval (Student's t), the small dots are the seeds. The dashed line is the floor: the same model with
attention removed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from harness.figures import Run, Sheet, Skip
from harness.figures._sheet import Paper, sheets
from harness.figures._style import FAINT, log_ticks
from harness.store.record import LESS_IS_BETTER, merit, parse_options
from harness.store.selection import WEIGHTS, Frame, sort_key
from harness.store.trained_for import bare, is_setting, own_options, problems

JUDGED = {
    "top1": "top-1 accuracy",
    "map50": "box AP50",
    "map": "box AP",
    "miou": "mean IoU",
    "relative_l2": "relative L2 error",
}  # the first there is drawn
COSTS = {"flops": ("GMAC of one call", 2e9), "latency": ("latency, ms", 1.0)}
FLOOR = "none"
# Student's t at 97.5 % by degrees of freedom, from 0; beyond, 1.96·(1 + 2/n) is up to 4 % above it
STUDENT = (math.inf, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Point:
    """One attention on one problem: the accuracy of each seed, and the cost."""

    attention: str
    series: str
    m: int | None
    accuracies: tuple[float, ...]
    costs: dict[str, float]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.accuracies))

    @property
    def half(self) -> float:
        """Half the 95 % interval of the mean over seeds; infinite for one."""
        return half_width(self.accuracies)


def half_width(values: Any) -> float:
    """Half of the 95 % interval of a mean by Student's t: t · s / √n; infinite for one value."""
    count = len(values)
    if count < 2:
        return math.inf
    quantile = STUDENT[count - 1] if count <= len(STUDENT) else 1.96 * (1 + 2 / count)
    return quantile * float(np.std(values, ddof=1)) / math.sqrt(count)


def draw(run: Run) -> list[Sheet]:
    """A file a problem with two or more attentions."""
    frame = run.frame[run.frame["scope"].str.startswith("model")].assign(scope="model")  # `trained` tells more
    held = _ok(frame).groupby("case_id")["metric"]
    metric = {case: next((name for name in JUDGED if name in set(own)), None) for case, own in held}
    frame = frame[frame["case_id"].map(lambda case: metric.get(case) is not None)]
    if frame.empty:
        raise Skip("no accuracy of a trained model; harness eval measures it")
    parsed = frame["options"].map(parse_options)
    distinct = list(frame["options"].unique())
    names = dict(zip(distinct, problems([parse_options(options) for options in distinct]), strict=True))
    frame["trained"] = frame["options"].map(names)
    frame["judged"] = frame["case_id"].map(metric)
    frame["weights"] = parsed.map(lambda options: options.get(WEIGHTS, ""))
    frame["series"] = frame["attention"] + parsed.map(own_options)
    drawn = []
    for suffix, where, group in sheets(frame, by=("trained",)):
        points = _points(group)
        if len({(p.attention, p.series, p.m) for p in points}) > 1:
            drawn.append(_sheet(run, suffix, where, group, points))
    if not drawn:
        raise Skip("accuracy and cost are known of one attention only")
    return drawn


def _settings(rows: Frame) -> str:
    """The model and recipe that all attentions shared."""
    options = parse_options(rows["options"].iloc[0])
    return " ".join(f"{bare(key)}={options[key]}" for key in sorted(options) if is_setting(key, options))


def _points(rows: Frame) -> list[Point]:
    found = []
    keys = ["attention", "series", "m"]
    for (attention, series, m), group in _ok(rows).groupby([*keys[:2], rows["m"].fillna(-1)]):
        table = group.pivot_table(index=["seed", "weights"], columns="metric", values="value", aggfunc="last")
        judged = group["judged"].iloc[0]
        costs = {name: float(table[name].median()) / scale for name, (_, scale) in COSTS.items() if name in table}
        if judged in table and costs:
            own = tuple(table[judged].dropna())
            found.append(Point(attention, series, None if m < 0 else int(m), own, costs))
    return sorted(found, key=lambda p: (p.attention != FLOOR, p.attention, p.series, p.m or 0))


def _sheet(run: Run, suffix: str, where: dict[str, Any], rows: Frame, points: list[Point]) -> Sheet:
    paper = Paper(where, rows, run, letters=60)  # a name with its options and m
    paper.looks.series = {name: sorted(set(own)) for name, own in rows.groupby("attention")["series"]}
    names = [name for name in COSTS if any(name in point.costs for point in points)]
    grid = paper.grid(1, len(names), tall=3.3, sharey=True)
    judged = rows["judged"].iloc[0]
    most, within = (math.inf, "above 0") if judged in LESS_IS_BETTER else (1.0, "within 0 … 1")  # a share
    for axes, name in zip(grid[0], names, strict=True):
        held = [point for point in points if name in point.costs]
        for point in held:
            _mark(axes, point, point.costs[name], paper, most=most)
        floor = [point.mean for point in points if point.attention == FLOOR]
        if floor:
            axes.axhline(floor[0], color="#666666", linewidth=1.0, linestyle=(0, (4, 2)), zorder=1.5)
        _frontier(axes, [(point.costs[name], point.mean) for point in held], judged)
        values = [point.costs[name] for point in held]
        axes.set_xscale("log")
        low, high = min(values) / 1.12, max(values) * 1.12
        axes.set_xlim(low, high)
        log_ticks(axes.xaxis, low, high)
        axes.set_xlabel(COSTS[name][0])
    grid[0, 0].set_ylabel(JUDGED[judged])
    seeds = sorted({len(point.accuracies) for point in points})
    counted = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return paper.finish(
        [
            f"{where['trained']} ({_settings(rows)}).",
            "Marks: one seed." if seeds == [1] else f"Marks: mean of {counted} seeds (dots).",
            "" if seeds == [1] else f"Bars: its 95 % interval, as far as it lies {within}.",
            "Thin line: best at its cost or less. Dashed: the floor, attention removed.",
        ],
        suffix=suffix,
    )  # fmt: skip


def _mark(axes: Any, point: Point, cost: float, paper: Paper, *, most: float) -> None:
    """The mean with its interval, the seeds beside it, and an entry in the legend."""
    look = paper.looks.of(point.attention, point.series, point.m)
    name = point.series if point.m is None else f"{point.series} m={point.m}"
    handle = Line2D([], [], linestyle="none", **look.point(markersize=6))
    paper.legend[name, (0, point.attention != FLOOR, *sort_key(point.attention, point.series, point.m))] = handle
    if math.isfinite(point.half):
        low, high = max(0.0, point.mean - point.half), min(most, point.mean + point.half)
        axes.vlines(cost, low, high, color=look.color, linewidth=1.4, zorder=2.5)
    axes.plot([cost] * len(point.accuracies), point.accuracies, linestyle="none", marker=".", markersize=3.5,
              color=look.color, alpha=0.6, zorder=2.6)  # fmt: skip
    axes.plot([cost], [point.mean], linestyle="none", zorder=3, **look.point(markersize=7))


def _frontier(axes: Any, pairs: list[tuple[float, float]], judged: str) -> None:
    """Steps through the points that none beats at its cost or less."""
    best, steps = -math.inf, []
    for cost, mean in sorted(pairs, key=lambda pair: (pair[0], -merit(judged, pair[1]))):
        if merit(judged, mean) > best:
            best = merit(judged, mean)
            steps.append((cost, mean))
    if len(steps) > 1:
        axes.step(*zip(*steps, strict=True), where="post", color=FAINT, linewidth=0.9, zorder=1.4)


def _ok(rows: Frame) -> Frame:
    return rows[rows["status"] == "ok"]

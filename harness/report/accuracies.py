"""The accuracies of the page's trained models, a point an attention and m of a problem: the mean over the seeds.

    of_runs(runs, names)    # [{"metric": "top1", "problem": "classification digits", "mean": 0.94, "values": […], …}]

Two problems (tasks, data, recipes, loads of recall) are never in one chart. A point carries no cost: the page sets it
against a latency of the same attention, options and m. less: less of the metric is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas

from harness.answers.known import JUDGED, groups
from harness.figures import Run
from harness.figures.pareto import half_width
from harness.store.record import LESS_IS_BETTER


def of_runs(runs: Sequence[Run], names: Sequence[str]) -> list[dict[str, Any]]:
    """The points of all runs, by metric and problem in the order of the rows."""
    frame: Any = pandas.concat([run.frame.assign(run=name) for run, name in zip(runs, names, strict=True)])
    found = [_point(key, rows) for key, rows in groups(frame)]
    return sorted(found, key=lambda point: JUDGED.index(point["metric"]))


def _point(key: dict[str, Any], rows: Any) -> dict[str, Any]:
    values = [float(value) for value in rows["value"]]
    half = half_width(values)
    return {
        **key, "less": key["metric"] in LESS_IS_BETTER, "mean": sum(values) / len(values), "values": values,
        "half": half if math.isfinite(half) else None, "runs": sorted(set(rows["run"])),
    }  # fmt: skip

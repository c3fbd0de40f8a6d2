"""The accuracies of the page's trained models, a point an attention and m of a problem: the mean over the seeds.

    of_runs(runs, names)    # [{"metric": "top1", "problem": "classification digits", "mean": 0.94, "values": […], …}]

Two problems (tasks, data, recipes, loads of recall) are never in one chart. A point carries no cost: the page sets it
against a latency of the same attention, options and m.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas

from harness.figures import Run
from harness.figures.pareto import half_width, own_options, problems
from harness.store.record import parse_options
from harness.store.selection import WEIGHTS

JUDGED = ("top1", "top5", "map", "map50", "map75", "miou")


def of_runs(runs: Sequence[Run], names: Sequence[str]) -> list[dict[str, Any]]:
    """The points of all runs, by metric and problem in the order of the rows."""
    frame: Any = pandas.concat([run.frame.assign(run=name) for run, name in zip(runs, names, strict=True)])
    frame = frame[frame["metric"].isin(JUDGED) & (frame["status"] == "ok") & frame["scope"].str.startswith("model")]
    if frame.empty:
        return []
    distinct = list(frame["options"].unique())
    parsed = [parse_options(options) for options in distinct]
    frame = frame.assign(
        problem=frame["options"].map(dict(zip(distinct, problems(parsed), strict=True))),
        own=frame["options"].map(dict(zip(distinct, map(own_options, parsed), strict=True))),
        weights=frame["options"].map(dict(zip(distinct, [each.get(WEIGHTS, "") for each in parsed], strict=True))),
        size=frame["m"].fillna(-1),
    )
    keys = ["metric", "problem", "attention", "own", "size"]
    found = [_point(dict(zip(keys, key, strict=True)), rows) for key, rows in frame.groupby(keys, sort=False)]
    return sorted(found, key=lambda point: JUDGED.index(point["metric"]))


def _point(key: dict[str, Any], rows: Any) -> dict[str, Any]:
    values = [
        float(value) for value in rows.drop_duplicates(["seed", "weights"], keep="last").sort_values("seed")["value"]
    ]
    half, size = half_width(values), key.pop("size")
    return {
        **key, "m": None if size < 0 else int(size), "mean": sum(values) / len(values),
        "half": half if math.isfinite(half) else None, "values": values, "runs": sorted(set(rows["run"])),
    }  # fmt: skip

"""The rows of the page: every row of every run, with what the charts need beside it. Nothing is averaged or left out.

rows = gather(runs)
rows.frame          # the runs' rows; `run`, `setting`, `whole`, `speed`, `speed_low`, `speed_high`, `base`, `intensity`
rows.settings       # what is ranked and drawn together: one run, machine, device, scope, shape, phase and dtype
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas

from harness.crossover import Crossover, Probe, among, one_sided
from harness.figures import Run, Skip
from harness.figures._style import lines_of
from harness.figures.roofline import points, roof_of
from harness.figures.speedup import ratios
from harness.report.island import Column, codes, numbers
from harness.selection import FILE, PANEL, Frame, metric_rows, settings

LOST = ("oom", "timeout")  # a base that cannot finish a size has lost there; other failures say nothing
DERIVED = ("speed", "speed_low", "speed_high", "intensity")
TEXTS = (
    "label", "series", "attention", "m", "n", "phase", "dtype", "scope", "metric", "unit", "status", "note", "b", "h",
    "d", "samples", "options", "seed", "machine", "device", "commit", "time_utc", "run_id", "case_id", "run", "setting",
    "whole", "base",
)  # fmt: skip
NUMBERS = ("value", "ci_low", "ci_high", "p20", "p80", *DERIVED)


@dataclass(frozen=True)
class Setting:
    """One set of rows that may be compared: its values, its latency rows and, per line, where it overtakes the base."""

    run: int
    values: dict[str, Any]
    latency: Frame
    base: str | None
    crossings: list[tuple[str, int | None, Crossover]]
    roof: tuple[float, float] | None


@dataclass(frozen=True)
class Rows:
    """All rows of a page and the settings that they fall into."""

    frame: Frame
    settings: list[Setting]

    def columns(self) -> dict[str, Column]:
        """As the island takes them."""
        frame = self.frame
        return {name: codes(frame[name]) for name in TEXTS} | {name: numbers(frame[name]) for name in NUMBERS}


def gather(runs: Sequence[Run]) -> Rows:
    """The rows of the runs, each run's apart."""
    frames, found = [], []
    for at, run in enumerate(runs):
        frame = run.frame.reset_index(drop=True)
        run = Run(folder=run.folder, frame=frame, environment=run.environment, whole=frame)
        frame = frame.assign(run=at, setting=None, whole=_whole_failures(frame), base=None)
        frame = frame.assign(**dict.fromkeys(DERIVED, math.nan))
        latency = metric_rows(run.frame, "latency")
        for values, rows in settings(latency, (*FILE, *PANEL)):
            own = pandas.Series(True, index=frame.index)
            for name, value in values.items():
                own &= frame[name] == value
            frame.loc[own, "setting"] = len(found)
            found.append(_setting(run, at, values, rows, frame))
        _add_intensity(run, frame)
        frames.append(frame)
    return Rows(pandas.concat(frames, ignore_index=True), found)


def _setting(run: Run, at: int, values: dict[str, Any], rows: Frame, frame: Frame) -> Setting:
    """The setting of these latency rows; their speed-ups over the base go into `frame`."""
    roof = roof_of(run, values["device"], values["dtype"], machine=values["machine"])
    speed = ratios(rows, run)
    if speed is None:
        return Setting(at, values, rows, None, [], roof)
    base = str(speed["base"].iloc[0]) if len(speed) else None
    good = speed[(speed["status"] == "ok") & speed["value"].notna()]
    for name, column in (("speed", "value"), ("speed_low", "ci_low"), ("speed_high", "ci_high"), ("base", "base")):
        frame.loc[good.index, name] = good[column]
    by_n = {int(row.n): row for row in rows[rows["series"] == base].itertuples()}
    crossings = []
    for _, series, m, line in lines_of(speed):
        probes = [probe for row in line.itertuples() if (probe := _probe(row, by_n.get(int(row.n)))) is not None]
        if probes:
            crossings.append((series, m, among(probes)))
    return Setting(at, values, rows, base, crossings, roof)


def _probe(row: Any, base: Any) -> Probe | None:
    """The latency ratio over the base at one n; None where one of them was not tried or failed for another reason."""
    n, status = int(row.n), "ok" if row.status == "no base" else row.status
    if base is None:
        return None
    if status == "ok" and base.status == "ok" and row.value > 0:
        known = row.ci_low > 0 and math.isfinite(row.ci_high)
        low, high = (1 / row.ci_high, 1 / row.ci_low) if known else (0.0, math.inf)
        return Probe(n=n, ratio=1 / row.value, low=low, high=high, a_ms=base.value / row.value, b_ms=base.value)
    if {status, base.status} - {"ok", *LOST} or (status != "ok" and base.status != "ok"):
        return None
    return one_sided(n, a_runs=status == "ok", b_runs=base.status == "ok", note=str(base.note or row.note))


def _whole_failures(frame: Frame) -> Any:
    """1 for the rows of cases of which nothing succeeded, else 0."""
    if frame.empty:
        return 0
    measured = frame.groupby(["machine", "case_id"])["status"].transform(lambda status: (status == "ok").any())
    return (~measured.astype(bool)).astype(int)


def _add_intensity(run: Run, frame: Frame) -> None:
    """FLOPs a byte beside each flops_rate, where latency and bytes_moved are known too."""
    try:
        rows = points(run)
    except Skip:
        return
    known = rows[(rows["status"] == "ok") & rows.index.isin(frame.index)]
    frame.loc[known.index, "intensity"] = known["intensity"]

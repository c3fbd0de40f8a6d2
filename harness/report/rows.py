"""The rows of the page: every row of every run, with what the charts need beside it. Nothing is left out.

Runs of one machine are ranked and drawn as one, a case by its newest row; the older ones are listed all the same.

rows = gather(runs)
rows.groups         # the runs that are ranked together, as one Run each, and the places of its runs in `runs`
rows.frame          # the runs' rows; `run`, `setting`, `whole`, `switched`, `speed`, `speed_low`, `speed_high`, …
rows.listed         # how many of them, from the first, are the runs' own; the rest are trained models over their seeds
rows.settings       # what is ranked and drawn together: one group, machine, device, scope, shape, phase and dtype
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas

from harness.answers.crossover import Crossover, Probe, among, one_sided
from harness.figures import Run, Skip
from harness.figures._style import lines_of
from harness.figures._together import Together, common
from harness.figures.roofline import points, roof_of
from harness.figures.speedup import ratios
from harness.report.island import Column, codes, numbers
from harness.store.contention import reason
from harness.store.record import parse_options
from harness.store.selection import FILE, PANEL, Frame, labelled, metric_rows, pool_seeds, settings, usual
from harness.store.trained_for import own_options

LOST = ("oom", "timeout")  # a base that cannot finish a size has lost there; other failures say nothing
DERIVED = ("speed", "speed_low", "speed_high", "intensity")
TEXTS = (
    "label", "series", "attention", "m", "n", "phase", "dtype", "scope", "metric", "unit", "status", "note", "b", "h",
    "d", "samples", "options", "seed", "machine", "device", "commit", "time_utc", "run_id", "case_id", "run", "setting",
    "whole", "base", "own", "backend", "switched",
)  # fmt: skip
NUMBERS = ("value", "ci_low", "ci_high", "p20", "p80", *DERIVED)


@dataclass(frozen=True)
class Setting:
    """One set of rows that may be compared: its values, its latency rows and, per line, where it overtakes the base.

    run: the place of its group.
    """

    run: int
    values: dict[str, Any]
    latency: Frame
    base: str | None
    crossings: list[tuple[str, int | None, Crossover]]
    roof: tuple[float, float] | None
    seeds: bool  # whether some of its rows are over several seeds of a trained model


@dataclass(frozen=True)
class Group:
    """Runs that are ranked as one: as one Run, as they are, and the places of these among the page's runs."""

    run: Run
    parts: tuple[Run, ...]
    of: tuple[int, ...]


@dataclass(frozen=True)
class Rows:
    """All rows of a page and the settings that they fall into."""

    frame: Frame
    settings: list[Setting]
    listed: int
    groups: list[Group]

    def columns(self) -> dict[str, Column]:
        """As the island takes them."""
        frame = self.frame
        return {name: codes(frame[name]) for name in TEXTS} | {name: numbers(frame[name]) for name in NUMBERS}


def gather(runs: Sequence[Run]) -> Rows:
    """The rows of the runs: those of one machine together, all others apart."""
    frames, found, groups = [], [], []
    for at, group in enumerate(_groups(runs)):
        run, frame = group.run, group.run.frame.reset_index(drop=True)
        drawn = labelled(pool_seeds(frame))
        run = replace(run, frame=drawn, whole=drawn)
        groups.append(replace(group, run=run))
        pooled = drawn[drawn.index >= len(frame)]
        frame = pandas.concat([frame, pooled]) if len(pooled) else frame
        frame.loc[drawn.index, ["label", "series"]] = drawn[["label", "series"]]  # as several runs together tell them
        own = frame["options"].map(lambda text: own_options(parse_options(text)))
        frame = frame.assign(setting=None, whole=_whole_failures(frame), base=None, own=own)
        frame = frame.assign(**dict.fromkeys(DERIVED, math.nan), pooled=frame.index.isin(pooled.index))
        latency = metric_rows(run.frame, "latency")
        for values, rows in settings(latency, (*FILE, *PANEL)):
            own = pandas.Series(frame.index.isin(drawn.index), index=frame.index)
            for name, value in values.items():
                own &= frame[name] == value
            frame.loc[own, "setting"] = len(found)
            found.append(_setting(run, at, values, rows, frame))
        _add_intensity(run, frame)
        frames.append(frame)
    whole: Frame = pandas.concat(frames, ignore_index=True).sort_values("pooled", kind="stable", ignore_index=True)
    whole["switched"] = _switched(whole)
    return Rows(whole, found, listed=int((~whole["pooled"]).sum()), groups=groups)


def _groups(runs: Sequence[Run]) -> list[Group]:
    """Runs that hold rows of one and the same machine alone are a group, its newest run last; `run`: whose a row is."""
    apart: dict[Any, list[int]] = {}
    for at, run in enumerate(runs):
        machines = tuple(set(run.frame["machine"]))
        apart.setdefault(machines if len(machines) == 1 else at, []).append(at)
    groups = []
    for places in apart.values():
        if len(places) == 1:
            run = runs[places[0]]
            groups.append(Group(replace(run, frame=run.frame.assign(run=places[0])), (run,), tuple(places)))
            continue
        order = sorted(places, key=lambda at: str(runs[at].frame["time_utc"].max()))
        frame = pandas.concat([runs[at].frame.assign(run=at) for at in order], ignore_index=True)
        parts = tuple(runs[at] for at in order)
        made = Together(
            folder=parts[-1].folder, frame=frame, environment=common(parts), whole=frame, parts=parts,
            clock=parts[-1].clock,
        )  # fmt: skip
        groups.append(Group(made, parts, tuple(places)))
    return groups


def _setting(run: Run, at: int, values: dict[str, Any], rows: Frame, frame: Frame) -> Setting:
    """The setting of these latency rows; their speed-ups over the base go into `frame`."""
    roof = roof_of(run, values["device"], values["dtype"], machine=values["machine"])
    seeds = bool(frame.loc[rows.index, "pooled"].any())
    speed = ratios(rows, run)
    if speed is None:
        return Setting(at, values, rows, None, [], roof, seeds)
    base = str(speed["base"].iloc[0]) if len(speed) else None
    good = speed[(speed["status"] == "ok") & speed["value"].notna()]
    for name, column in (("speed", "value"), ("speed_low", "ci_low"), ("speed_high", "ci_high"), ("base", "base")):
        frame.loc[good.index, name] = good[column]
    by_n = {int(row.n): row for row in rows[rows["series"] == base].itertuples()}
    own = {row.Index: row for row in rows.itertuples()}
    crossings = []
    for _, series, m, line in lines_of(speed):
        probes = [
            probe
            for row in line.itertuples()
            if (probe := _probe(row, by_n.get(int(row.n)), own.get(row.Index))) is not None
        ]
        if probes:
            crossings.append((series, m, among(probes)))
    return Setting(at, values, rows, base, crossings, roof, seeds)


def _probe(row: Any, base: Any, own: Any) -> Probe | None:
    """The latency ratio over the base at one n, own the latency itself; None where one of them was not tried or failed
    for another reason."""
    n, status = int(row.n), "ok" if row.status == "no base" else row.status
    if base is None:
        return None
    if status == "ok" and base.status == "ok" and row.value > 0:
        known = row.ci_low > 0 and math.isfinite(row.ci_high)
        low, high = (1 / row.ci_high, 1 / row.ci_low) if known else (0.0, math.inf)
        return Probe(
            n=n, ratio=1 / row.value, low=low, high=high, a_ms=base.value / row.value, b_ms=base.value,
            a_range=_range(own), b_range=_range(base), contended=reason(row.note),
        )  # fmt: skip
    if {status, base.status} - {"ok", *LOST} or (status != "ok" and base.status != "ok"):
        return None
    return one_sided(n, a_runs=status == "ok", b_runs=base.status == "ok", note=str(base.note or row.note))


def _range(row: Any) -> tuple[float, float] | None:
    """The interval of a latency, or None without one."""
    if row is None or not row.ci_low > 0 or not math.isfinite(row.ci_high):
        return None
    return float(row.ci_low), float(row.ci_high)


def _whole_failures(frame: Frame) -> Any:
    """1 for the rows of cases of which nothing succeeded, else 0."""
    if frame.empty:
        return 0
    measured = frame.groupby(["machine", "case_id"])["status"].transform(lambda status: (status == "ok").any())
    return (~measured.astype(bool)).astype(int)


def _switched(frame: Frame) -> Any:
    """`by another backend: chunked, else by reference` for the points of a line that are by another than most of it."""
    told = pandas.Series("", index=frame.index, dtype=object)
    good = frame[frame["setting"].notna() & (frame["status"] == "ok")]
    line = [*(good[name] for name in ("setting", "metric", "attention", "series")), good["m"].fillna(-1)]
    good = good[good.groupby(line)["backend"].transform("nunique") > 1].sort_values("n", kind="stable")
    for _, own in good.groupby([each.loc[good.index] for each in line], sort=False):
        most = usual(list(own["backend"]))
        for backend, others in own[own["backend"] != most].groupby("backend"):
            told[others.index] = f"by another backend: {backend}, else by {most}"
    return told


def _add_intensity(run: Run, frame: Frame) -> None:
    """FLOPs a byte beside each flops_rate, where latency and bytes_moved are known too."""
    try:
        rows = points(run)
    except Skip:
        return
    known = rows[(rows["status"] == "ok") & rows.index.isin(frame.index)]
    frame.loc[known.index, "intensity"] = known["intensity"]

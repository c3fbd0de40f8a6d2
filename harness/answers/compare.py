"""Two stored runs side by side: the ratio of each case's figures, with an interval where samples allow. No torch.

    for line in compare(Path("results/a"), Path("results/b")): print(line)

Times are compared only between runs of one machine; everything else always. A case is matched by its case_id, on the
same machine where both sides have it there; a side of several runs has the newest row of each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from harness import stats
from harness.errors import NothingToCompare, UsageError, unknown
from harness.store import contention
from harness.store import runs as store
from harness.store.record import DTYPES, PHASES, TASK_UNITS, UNITS
from harness.store.selection import place, sort_key

TIMED = ("latency", "host", "first_call", "throughput", "flops_rate", "roofline_fraction", "energy")
EXACT = ("flops", "peak_memory", "bytes_moved", "kernels")
THRESHOLD = 0.05
ERROR_FACTOR = 2.0
FEWEST = 10


@dataclass(frozen=True, kw_only=True)
class Line:
    """One metric of one case in both runs: b over a, and what that shows."""

    case_id: str
    case: str
    metric: str
    unit: str
    a: float | None
    b: float | None
    ratio: float | None
    low: float | None
    high: float | None
    verdict: str
    reason: str
    contended: str = ""


@dataclass(frozen=True)
class _Figure:
    """A row, and the raw samples behind it."""

    row: Any
    raw: Any


def compare(
    a: Path | Sequence[Path], b: Path | Sequence[Path], *, metrics: tuple[str, ...] = ("latency",)
) -> list[Line]:  # fmt: skip
    """The lines of every case that either side holds, by variant, scope, phase, dtype, n and m. A side: runs, or one.

    Raises UsageError for an unknown metric, StoreError for a folder that is no run, NothingToCompare when the runs
    share no case.
    """
    for name in metrics or ("",):
        if name not in UNITS | TASK_UNITS:
            raise UsageError(unknown("metric", name, UNITS | TASK_UNITS))
    sides = [_side([side] if isinstance(side, Path) else side) for side in (a, b)]
    names = [str(side) if isinstance(side, Path) else ", ".join(map(str, side)) for side in (a, b)]
    if not {case for case, _ in sides[0]} & {case for case, _ in sides[1]}:
        told = " and ".join(names)
        raise NothingToCompare(f"{told} share no case: they differ in variant, size, dtype, phase or device")
    keys = [key for key in {**sides[0], **sides[1]} if key[1] in metrics]
    if not keys:
        raise NothingToCompare(f"neither {names[0]} nor {names[1]} holds {', '.join(metrics)}")
    pairs = [pair for key in keys for pair in _pairs(sides[0].get(key, {}), sides[1].get(key, {}))]
    placed = [((second or first), first, second) for first, second in pairs]
    order = sorted(placed, key=lambda told: _place(told[0].row if told[0] else None, metrics))
    return [_line(first, second) for _, first, second in order]


def _place(row: Any, metrics: tuple[str, ...]) -> tuple[Any, ...]:
    """Where a line stands: runs hold their cases in the shuffled order of measuring."""
    return (
        *sort_key(row.attention, row.backend), row.scope, place(row.phase, PHASES), place(row.dtype, DTYPES),
        row.b, row.h, row.d, row.n, -1 if _none(row.m) else row.m, row.options, row.seed, metrics.index(row.metric),
    )  # fmt: skip


def _line(first: _Figure | None, second: _Figure | None) -> Line:
    a, b = (None if side is None else side.row for side in (first, second))
    row: Any = b if b is not None else a
    size = f"n={row.n}" + ("" if _none(row.m) else f" m={row.m}") + f" b={row.b} h={row.h} d={row.d}"
    told = [*filter(None, [row.options]), *([f"seed={row.seed}"] if row.seed else [])]
    facts: dict[str, Any] = {
        "case_id": row.case_id, "metric": row.metric, "unit": row.unit,
        "case": " ".join([f"{row.attention}:{row.backend}".rstrip(":"), size, row.dtype, row.phase, row.scope, *told]),
    }  # fmt: skip
    figures = [
        None if side is None or side.status != "ok" or not math.isfinite(side.value) else float(side.value)
        for side in (a, b)
    ]
    nothing: dict[str, Any] = {"a": figures[0], "b": figures[1], "ratio": None, "low": None, "high": None}
    for side, name in ((a, "A"), (b, "B")):
        if side is None:
            return Line(**facts, **nothing, verdict="missing", reason=f"run {name} lacks this case or metric")
        if side.status != "ok":
            reason = f"{side.status} in run {name}: {side.note}"
            return Line(**facts, **nothing, verdict="not comparable", reason=reason)
        if not math.isfinite(side.value):
            return Line(**facts, **nothing, verdict="not comparable", reason=f"no finite figure in run {name}")
    return Line(**facts, **_judge(a, b, raw=[side.raw for side in (first, second) if side is not None]))


def _judge(a: Any, b: Any, *, raw: Sequence[Any]) -> dict[str, Any]:
    first, second, metric = float(a.value), float(b.value), a.metric
    judged: dict[str, Any] = {
        "a": first,
        "b": second,
        "ratio": second / first if first else None,
        "low": None,
        "high": None,
    }
    if metric in EXACT:
        same = first == second
        verdict = "same" if same else "more" if second > first else "less"
        return judged | {"verdict": verdict, "reason": "deterministic: compared exactly"}
    if metric not in TIMED:
        worse = second > ERROR_FACTOR * first
        return judged | {"verdict": "more" if worse else "same", "reason": f"more means over {ERROR_FACTOR:g} times"}
    if a.machine != b.machine:
        return judged | {"verdict": "not comparable", "reason": f"other machines: {a.machine} and {b.machine}"}
    doubts = "; ".join(
        f"run {name} was not quiet: {why}"
        for name, side in (("A", a), ("B", b))
        if (why := contention.reason(side.note))
    )
    if doubts:
        ends = [a.ci_low, a.ci_high, b.ci_low, b.ci_high]
        known = all(math.isfinite(end) and end > 0 for end in ends)
        judged |= {"low": ends[2] / ends[1], "high": ends[3] / ends[0]} if known else {}
        return judged | {"verdict": "inconclusive", "reason": doubts, "contended": doubts}
    if metric != "latency" or any(len(each) < FEWEST for each in raw):
        return judged | {"verdict": "inconclusive", "reason": f"needs at least {FEWEST} raw samples in both runs"}
    try:
        ratio, low, high = stats.ratio_interval(raw[1], raw[0])
    except ValueError as error:
        return judged | {"verdict": "inconclusive", "reason": f"the raw samples are damaged: {error}"}
    judged |= {"ratio": ratio, "low": low, "high": high}
    reason = f"against ±{100 * THRESHOLD:g} %; two runs differ by drift too, which samples of one run do not show"
    if low > 1 + THRESHOLD:
        return judged | {"verdict": "slower", "reason": reason}
    if high < 1 / (1 + THRESHOLD):
        return judged | {"verdict": "faster", "reason": reason}
    if low > 1 / (1 + THRESHOLD) and high < 1 + THRESHOLD:
        return judged | {"verdict": "same", "reason": reason}
    return judged | {"verdict": "inconclusive", "reason": reason}


def _side(folders: Sequence[Path]) -> dict[tuple[str, str], dict[str, _Figure]]:
    """The newest figure of each (case, metric) on each machine, from one run or several."""
    found: dict[tuple[str, str], dict[str, _Figure]] = {}
    frames = [(folder, store.read(folder)) for folder in folders]
    for folder, frame in sorted(frames, key=lambda pair: str(pair[1]["time_utc"].max())):
        groups: Any = store.read_samples(folder).groupby(["case_id", "metric"])
        raw = {key: group["value"].to_numpy() for key, group in groups}
        rows: Any = frame.itertuples(index=False)
        for row in rows:
            key = row.case_id, row.metric
            found.setdefault(key, {})[row.machine] = _Figure(row, raw.get(key, ()))
    return found


def _pairs(
    a: dict[str, _Figure], b: dict[str, _Figure]
) -> Iterator[tuple[_Figure | None, _Figure | None]]:  # fmt: skip
    """Figures of one case and metric by machine: those of one machine together, then the others as they come."""
    both = [machine for machine in a if machine in b]
    yield from ((a[machine], b[machine]) for machine in both)
    left, right = ([one for machine, one in side.items() if machine not in both] for side in (a, b))
    yield from zip_longest(left, right)


def _none(value: Any) -> bool:
    import pandas

    return value is None or bool(pandas.isna(value))

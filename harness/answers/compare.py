"""Two stored runs side by side: the ratio of each case's figures, with an interval where samples allow. No torch.

    for line in compare(Path("results/a"), Path("results/b")): print(line)

Times are compared only between runs of one machine; everything else always. A case is matched by its case_id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import stats
from harness.errors import NothingToCompare, UsageError, unknown
from harness.store import contention
from harness.store import runs as store
from harness.store.record import DTYPES, PHASES, TASK_UNITS, UNITS
from harness.store.selection import place, sort_key

if TYPE_CHECKING:
    import pandas

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


def compare(
    a: Path, b: Path, *, metrics: tuple[str, ...] = ("latency",), keep: Callable[[Any], Any] = lambda frame: frame
) -> list[Line]:
    """The lines of every case that either run holds, by variant, scope, phase, dtype, n and m.

    keep: the rows of both runs together that are meant.
    Raises UsageError for an unknown metric, StoreError for a folder that is no run, NothingToCompare when the runs
    share no case.
    """
    for name in metrics or ("",):
        if name not in UNITS | TASK_UNITS:
            raise UsageError(unknown("metric", name, UNITS | TASK_UNITS))
    import pandas

    frames: list[Any] = [store.read(folder) for folder in (a, b)]
    both: Any = pandas.concat([frame.assign(side=at) for at, frame in enumerate(frames)], ignore_index=True)
    meant = keep(both)
    frames = [meant[meant["side"] == at] for at in range(len(frames))]
    shared = set(frames[0]["case_id"]) & set(frames[1]["case_id"])
    if not shared:
        raise NothingToCompare(f"{a} and {b} share no case: they differ in variant, size, dtype, phase or device")
    samples = [_samples(folder) for folder in (a, b)]
    tables = [_table(frame) for frame in frames]
    found = {**tables[0], **tables[1]}
    keys = sorted((key for key in found if key[1] in metrics), key=lambda key: _place(found[key], metrics))
    if not keys:
        raise NothingToCompare(f"neither {a} nor {b} holds {', '.join(metrics)}")
    return [_line(key, tables[0].get(key), tables[1].get(key), samples) for key in keys]


def _place(row: Any, metrics: tuple[str, ...]) -> tuple[Any, ...]:
    """Where a line stands: runs hold their cases in the shuffled order of measuring."""
    return (
        *sort_key(row.attention, row.backend), row.scope, place(row.phase, PHASES), place(row.dtype, DTYPES),
        row.b, row.h, row.d, row.n, -1 if _none(row.m) else row.m, row.options, row.seed, metrics.index(row.metric),
    )  # fmt: skip


def _line(key: tuple[str, str], a: Any, b: Any, samples: list[dict[tuple[str, str], Any]]) -> Line:
    row = b if b is not None else a
    size = f"n={row.n}" + ("" if _none(row.m) else f" m={row.m}") + f" b={row.b} h={row.h} d={row.d}"
    told = [*filter(None, [row.options]), *([f"seed={row.seed}"] if row.seed else [])]
    facts: dict[str, Any] = {
        "case_id": key[0], "metric": key[1], "unit": row.unit,
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
    return Line(**facts, **_judge(key, a, b, samples))


def _judge(key: tuple[str, str], a: Any, b: Any, samples: list[dict[tuple[str, str], Any]]) -> dict[str, Any]:
    first, second, metric = float(a.value), float(b.value), key[1]
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
    if metric != "latency" or any(len(table.get(key, ())) < FEWEST for table in samples):
        return judged | {"verdict": "inconclusive", "reason": f"needs at least {FEWEST} raw samples in both runs"}
    try:
        ratio, low, high = stats.ratio_interval(samples[1][key], samples[0][key])
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


def _table(frame: pandas.DataFrame) -> Mapping[tuple[str, str], Any]:
    rows: Any = frame.itertuples(index=False)
    return {(row.case_id, row.metric): row for row in rows}


def _samples(folder: Path) -> dict[tuple[str, str], Any]:
    frame = store.read_samples(folder)
    groups: Any = frame.groupby(["case_id", "metric"])
    return {key: group["value"].to_numpy() for key, group in groups}


def _none(value: Any) -> bool:
    import pandas

    return value is None or bool(pandas.isna(value))

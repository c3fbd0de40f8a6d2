"""The baseline: a committed CSV with the columns of measurements.csv, holding what one revision measured.

stored = read(Path("results/baseline.csv"))
facts = stored.facts[case.case_id]              # as a worker of base would have told them
write(Path("results/baseline.csv"), rows)       # all or nothing

Beside the metrics a case has a row `definition`: `value` is the size of its reference's output, `note` the rest. The
run_id counts and hashes the cases, so that a baseline that lost one is refused.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import stats
from harness.check.deterministic import IMPLAUSIBLE_BELOW, METRICS, TOOLCHAIN_BOUND, Facts
from harness.check.verdict import Finding, Verdict
from harness.errors import Failure, NothingToCompare, brief, reason
from harness.store import runs as store
from harness.store.csvfile import CsvFile, check_header
from harness.store.record import COLUMNS, Case, Reading, Row, new_run_id
from harness.store.replacing import replacing
from harness.store.rows import LEFT_OUT

DEFINITION = "definition"
SMALLEST_CHANGE = 0.05
REFUSED = ("failed", "regressed", "implausible", "void")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A baseline as read: its cases in order, their facts and stored timings by case_id, and where they are from."""

    cases: list[Case]
    facts: Mapping[str, Facts]
    timings: Mapping[str, Reading]
    machine: str
    commit: str


def read(path: Path) -> Stored:
    """Raises NothingToCompare for no file or no rows, StoreError for foreign columns, Failure for a damaged one."""
    if not path.is_file():
        raise NothingToCompare(f"baseline {path} does not exist; write one with: harness check --update {path}")
    frame = store.read(path)
    if frame.attrs[LEFT_OUT]:
        raise Failure(f"{path} is damaged: {frame.attrs[LEFT_OUT][0]}; write it again with --update")
    if frame.empty:
        raise NothingToCompare(f"baseline {path} has no rows; write one with: harness check --update {path}")
    cases, facts, timings = [], {}, {}
    for case_id, rows in frame.groupby("case_id", sort=False):
        first = rows.iloc[0]
        case = Case(**{f.name: _plain(first[f.name]) for f in fields(Case)})
        if case.case_id != case_id:
            raise Failure(f"{path}: case {brief(case_id)} was edited: its columns belong to case {case.case_id}")
        lines: Any = rows.itertuples(index=False)
        readings = {row.metric: _reading(row, path) for row in lines}
        lacking = [name for name in (DEFINITION, *METRICS) if name not in readings]
        if lacking:
            raise Failure(f"{path}: {brief(str(case), 200)} lacks {', '.join(lacking)}; write it again with --update")
        cases.append(case)
        facts[case.case_id] = _facts(case, readings)
        if "latency" in readings:
            timings[case.case_id] = readings["latency"]
    if set(frame["run_id"]) != {run_id(cases)}:
        raise Failure(
            f"{path} is not whole: {brief(', '.join(sorted(set(frame['run_id']))))} but {run_id(cases)} by its cases"
        )
    return Stored(
        cases=cases, facts=facts, timings=timings, machine=str(frame["machine"].iloc[0]),
        commit=str(frame["commit"].iloc[0]),
    )  # fmt: skip


def run_id(cases: Sequence[Case]) -> str:
    """How many cases a baseline holds and a hash of which."""
    names = "\n".join(sorted(case.case_id for case in cases))
    return f"baseline-{len(cases)}-{hashlib.sha256(names.encode()).hexdigest()[:12]}"


def rows_of(
    measured: Sequence[tuple[Case, Facts, Sequence[float]]], *, machine: str, commit: str, name: str = ""
) -> list[Row]:  # fmt: skip
    """The rows of a baseline: each case's facts and, where there are any, the medians of its processes in ms.

    name: their run_id, that of the cases by default.
    """
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    name = name or run_id([case for case, _, _ in measured])
    rows = []
    for case, facts, medians in measured:
        readings = [_definition(facts), *(_keyed(facts.readings[metric], facts.toolchain) for metric in METRICS)]
        if medians:
            low, high = stats.median_interval(medians)
            readings.append(
                Reading(
                    metric="latency", value=statistics.median(medians), ci_low=low, ci_high=high,
                    samples=len(medians), note=f"median of the medians of {len(medians)} processes",
                )
            )  # fmt: skip
        rows += [Row.of(case, r, run_id=name, machine=machine, commit=commit, time_utc=now) for r in readings]
    return rows


def write(path: Path, rows: Sequence[Row]) -> None:
    """Replace the file at once or leave it as it is. Raises Failure."""
    import csv

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(row.cells() for row in rows)
    except OSError as error:
        raise Failure(f"cannot write {path}: {reason(error)}") from None


def append(path: Path, measured: Sequence[tuple[Case, Facts, Sequence[float]]], *, machine: str, commit: str) -> None:
    """Add what one check measured to a history, which `harness history` reads. Raises Failure, StoreError for no such.

    A file that another check is writing at this moment is refused, as is one with other columns.
    """
    check_header(path, COLUMNS, links=True)
    name = f"check-{new_run_id()}"
    rows = rows_of(measured, machine=machine, commit=commit, name=name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = CsvFile(path, COLUMNS)
    except OSError as error:
        raise Failure(f"cannot write {path}: {reason(error)}") from None
    try:
        if not file.lock():
            raise Failure(f"{path} is being written by another check")
        file.mend()
        file.append(row.cells() for row in rows)
    finally:
        file.close()


def compare_timing(name: str, stored: Reading | None, medians: Sequence[float]) -> Finding:
    """A stored latency against processes of now, on the same machine: at most a hint, since drift since then counts."""
    facts: dict[str, Any] = {
        "case": name, "tier": 2, "check": "latency", "unit": "ms", "variant": name.split(" ", 1)[0].split(":", 1)[0]
    }  # fmt: skip
    if stored is None or not stored.value:
        return Finding(**facts, verdict="not comparable", reason="the baseline holds no timing of this case")
    now = statistics.median(medians)
    low, high = stats.median_interval(medians)
    ratio = now / stored.value
    verdict: Verdict = "ok" if high < (1 + SMALLEST_CHANGE) * (stored.ci_high or stored.value) else "inconclusive"
    figure = f"{now:.4g} ms in {len(medians)} processes, {stored.value:.4g} ms stored"
    hint = (
        "not slower than its interval and 5 %"
        if verdict == "ok"
        else "slower, or the machine drifted: --against REV tells"
    )
    if ratio < IMPLAUSIBLE_BELOW:
        verdict, hint = "inconclusive", "under a fifth of it: look whether the work is still done; --against REV tells"
    return Finding(
        **facts, verdict=verdict, reason=f"{figure}: {hint}", base=stored.value, head=now, ratio=ratio,
        low=low / stored.value, high=high / stored.value,
    )  # fmt: skip


def _facts(case: Case, readings: Mapping[str, Reading]) -> Facts:
    described = readings[DEFINITION]
    noted = dict(part.split("=", 1) for part in described.note.split("; ") if "=" in part)
    try:
        definition = {
            "fields": noted["fields"],
            "size": float(described.value or math.nan),
            "projections": [float(text) for text in noted["projections"].split(",")],
        }
    except (KeyError, ValueError):
        definition = None
    toolchain = next(
        (part.removeprefix("toolchain=") for part in readings["peak_memory"].note.split("; ") if "toolchain=" in part),
        "",
    )
    return Facts(dtype=case.dtype, readings=readings, definition=definition, toolchain=toolchain)


def _definition(facts: Facts) -> Reading:
    described = facts.definition
    assert described is not None
    projections = ",".join(map(repr, described["projections"]))
    note = f"fields={described['fields']}; projections={projections}"
    return Reading(metric=DEFINITION, value=described["size"], samples=1, note=note)


def _keyed(reading: Reading, toolchain: str) -> Reading:
    if reading.metric not in TOOLCHAIN_BOUND:
        return reading
    return replace(reading, note="; ".join(filter(None, [reading.note, f"toolchain={toolchain}"])))


def _reading(row: Any, path: Path) -> Reading:
    value = _plain(row.value)
    if row.status != "ok" or value is None or not math.isfinite(value):
        what = f"{brief(row.metric)} of case {brief(row.case_id)}"
        raise Failure(f"{path}: {what} is no figure ({row.status}, {row.value})")
    return Reading(
        metric=row.metric, value=value, ci_low=_plain(row.ci_low), ci_high=_plain(row.ci_high), p20=_plain(row.p20),
        p80=_plain(row.p80), samples=_plain(row.samples), status=row.status, note=row.note,
    )  # fmt: skip


def _plain(value: Any) -> Any:
    """A pandas cell as Python's own type; None for a missing one."""
    import pandas

    if value is None or (not isinstance(value, str) and pandas.isna(value)):
        return None
    return getattr(value, "item", lambda: value)()

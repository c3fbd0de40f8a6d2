"""What a sweep will cost before it runs: memory fit and time, from the cost models and the device's ceilings. No torch.

speed = Speed.of(engine, session, ["float32"], patience_s=20)
plan = estimate(sweep, resolutions, device="cpu", free=8 << 30, speed=speed, exact={"full"}, warnings=[])
render(plan, as_json=False)

No result ever uses a figure of this page. harness.sweep.duration says how a case's seconds come about.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from harness.cases.catalogue import Resolution
from harness.cases.space import Sweep
from harness.engines.watch import Looked, Watch
from harness.store.naming import Names
from harness.store.table import folded
from harness.sweep.conduct import memory_refusal
from harness.sweep.duration import START_S, Duration

TOLD = {"timeout": "would time out"}  # what a status is called of a case that nobody has run
STATUS_LETTERS, NOTE_INDENT = 14, 16


class Measured(Looked, Protocol):
    """What an engine tells of its device's speed."""

    def ceilings(self, dtypes: Sequence[str]) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The ceilings of a device that is quiet. factor: how many times slower it was now; reason: why, "" where quiet."""

    ceilings: Mapping[str, Any]
    factor: float = 1.0
    reason: str = ""

    @classmethod
    def of(cls, engine: Measured, session: Mapping[str, Any], dtypes: Sequence[str], *, patience_s: float) -> Speed:
        """Measured in a quiet moment; where there is none, raised by as much as the machine was slowed."""
        watch = Watch.of(engine, session, patience_s=patience_s)
        taken = watch.quietly(lambda: engine.ceilings(dtypes), well=lambda found: True)
        found, verdict = taken.result, taken.verdict
        if verdict is None or not verdict.disturbed:
            return cls(ceilings=found)
        rates = {name: rate * verdict.factor for name, rate in found["matmul_tflops"].items()}
        raised = {**found, "copy_gb_per_s": found["copy_gb_per_s"] * verdict.factor, "matmul_tflops": rates}
        return cls(ceilings=raised, factor=verdict.factor, reason=verdict.reason)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One case: what it would be recorded as and about how many seconds it takes.

    case: all that it is; name: what tells it from the others of its plan, which share the rest.
    A case that would outlast the sweep's timeout has status timeout and takes as long as that.
    """

    case_id: str
    case: str
    name: str
    status: str
    needs_bytes: int | None
    seconds: float
    note: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All cases of a sweep on one device. seconds: on a quiet machine; most_seconds: if it stays as busy as now."""

    device: str
    free_bytes: int
    seconds: float
    most_seconds: float
    cases: list[Planned]
    warnings: list[str]
    shared: str


def estimate(
    sweep: Sweep, resolutions: Sequence[Resolution], *, device: str, free: int, speed: Speed,
    exact: Collection[str], warnings: Sequence[str],
) -> Plan:  # fmt: skip
    """Status, memory and seconds of every case, and their total with start-up. exact: the variants that are."""
    kind = device.partition(":")[0]
    duration = Duration(
        device=kind, ceilings=speed.ceilings, exact=exact, budget_s=sweep.budget, metrics=sweep.metrics
    )  # fmt: skip
    cases, names = [], Names(resolution.case for resolution in resolutions)
    for resolution in resolutions:
        refusal = memory_refusal(resolution, free) if resolution.status == "ok" else None
        status, note, seconds = resolution.status, resolution.note, 0.0
        if refusal:
            status, note = "oom", refusal
        if status == "ok":
            seconds = duration.of(resolution)
            if seconds > sweep.timeout:
                told = f"would time out: about {_spoken(seconds)} against --timeout {sweep.timeout:g}"
                status, note, seconds = "timeout", f"{told}; {note}" if note else told, sweep.timeout + START_S[kind]
        cases.append(
            Planned(
                case_id=resolution.case.case_id, case=str(resolution.case), name=names.of(resolution.case),
                status=status, needs_bytes=resolution.peak_bytes, note=note, seconds=seconds,
            )
        )  # fmt: skip
    measuring, warned = sum(case.seconds for case in cases), list(warnings)
    if speed.reason:
        warned.append(
            f"the machine was busy as its speed was measured ({speed.reason}): the seconds are those of a quiet one, "
            f"as far as can be told; {speed.factor:.2g} times as many if it stays so"
        )
    return Plan(
        device=device, free_bytes=free, seconds=START_S[kind] + measuring, cases=cases, warnings=warned,
        most_seconds=START_S[kind] + speed.factor * measuring, shared=names.shared,
    )  # fmt: skip


def _clock(seconds: float) -> str:
    """`3:26`, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _spoken(seconds: float) -> str:
    """`430 s`, `43 h`, `12 days`: as long as it is told in few digits."""
    for unit, length, most in (("s", 1, 1000), ("min", 60, 120), ("h", 3600, 100)):
        if seconds < most * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def render(plan: Plan, *, as_json: bool) -> None:
    """Print the plan: a table and totals on stdout, warnings on stderr; or one JSON document."""
    for text in plan.warnings:
        print(f"warning: {text}", file=sys.stderr)
    if as_json:
        json.dump(asdict(plan), sys.stdout, indent=2)
        print()
        return
    if plan.shared:
        print(folded(f"all: {plan.shared}", NOTE_INDENT))
    told: set[str] = set()
    for case in plan.cases:
        needs = f"{case.needs_bytes / 1e9:7.2f} GB" if case.needs_bytes is not None else "      ? GB"
        status = TOLD.get(case.status, case.status)
        print(
            folded(f"{case.case_id}  {status:<{STATUS_LETTERS}}{needs} {case.seconds:5.0f} s  {case.name}", NOTE_INDENT)
        )
        note = case.note.removeprefix(f"{status}: ")
        if note and note not in told:
            told.add(note)
            print(folded(f"{'':{NOTE_INDENT - 2}}{note}", NOTE_INDENT))
    ready = sum(case.status == "ok" for case in plan.cases)
    late = sum(case.status == "timeout" for case in plan.cases)
    busy = f" to {_clock(plan.most_seconds)} min, as busy as it is" if plan.most_seconds > plan.seconds else " min"
    print(
        f"\n{len(plan.cases)} cases, {ready} to measure on {plan.device} ({plan.free_bytes / 1e9:.1f} GB free)"
        f"{f', {late} would time out' if late else ''}; about {_clock(plan.seconds)}{busy}"
    )

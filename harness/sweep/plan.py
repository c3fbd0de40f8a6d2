"""What a sweep will cost before it runs: memory fit and time, from the cost models and the device's ceilings. No torch.

plan = estimate(sweep, resolutions, device="cpu", free=8 << 30, ceilings=ceilings, exact={"full"}, warnings=[])
render(plan, as_json=False)

No result ever uses a figure of this page. harness.sweep.duration says how a case's seconds come about.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.cases.catalogue import Resolution
from harness.cases.space import Sweep
from harness.store.naming import Names
from harness.store.table import folded
from harness.sweep.conduct import memory_refusal
from harness.sweep.duration import START_S, Duration

TOLD = {"timeout": "would time out"}  # what a status is called of a case that nobody has run
STATUS_LETTERS, NOTE_INDENT = 14, 16


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
    """All cases of a sweep on one device."""

    device: str
    free_bytes: int
    seconds: float
    cases: list[Planned]
    warnings: list[str]
    shared: str


def estimate(
    sweep: Sweep, resolutions: Sequence[Resolution], *, device: str, free: int, ceilings: Mapping[str, Any],
    exact: Collection[str], warnings: Sequence[str],
) -> Plan:  # fmt: skip
    """Status, memory and seconds of every case, and their total with start-up. exact: the variants that are."""
    kind = device.partition(":")[0]
    duration = Duration(
        device=kind, ceilings=ceilings, exact=exact, budget_s=sweep.budget, metrics=sweep.metrics
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
    total = START_S[kind] + sum(case.seconds for case in cases)
    return Plan(
        device=device, free_bytes=free, seconds=total, cases=cases, warnings=list(warnings), shared=names.shared
    )  # fmt: skip


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
    minutes, seconds = divmod(round(plan.seconds), 60)
    print(
        f"\n{len(plan.cases)} cases, {ready} to measure on {plan.device} ({plan.free_bytes / 1e9:.1f} GB free)"
        f"{f', {late} would time out' if late else ''}; about {minutes}:{seconds:02d} min"
    )

"""What a sweep will cost before it runs: memory fit and time, from the cost models. No torch.

The rates below only size the estimate; no result ever uses them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from harness.cases.catalogue import Resolution
from harness.cases.space import Sweep
from harness.store.table import folded
from harness.sweep.conduct import memory_refusal

ASSUMED_FLOPS_PER_S = {"cpu": 2e10, "cuda": 1e14}  # a core, a GPU: deliberately low
START_S, CASE_S, CALLS = 8.0, 0.6, 20


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One case: what it would be recorded as and about how many seconds it takes."""

    case_id: str
    case: str
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


def estimate(
    sweep: Sweep, resolutions: Sequence[Resolution], *, device: str, free: int, warnings: Sequence[str]
) -> Plan:  # fmt: skip
    """Status, memory and seconds of every case, and their total with start-up."""
    cases = []
    for resolution in resolutions:
        refusal = memory_refusal(resolution, free) if resolution.status == "ok" else None
        status = "oom" if refusal else resolution.status
        cases.append(
            Planned(
                case_id=resolution.case.case_id, case=str(resolution.case), status=status,
                needs_bytes=resolution.peak_bytes, note=refusal or resolution.note,
                seconds=_seconds(resolution, sweep, device) if status == "ok" else 0.0,
            )
        )  # fmt: skip
    total = START_S + sum(case.seconds for case in cases)
    return Plan(device=device, free_bytes=free, seconds=total, cases=cases, warnings=list(warnings))


def render(plan: Plan, *, as_json: bool) -> None:
    """Print the plan: a table and totals on stdout, warnings on stderr; or one JSON document."""
    for text in plan.warnings:
        print(f"warning: {text}", file=sys.stderr)
    if as_json:
        json.dump(asdict(plan), sys.stdout, indent=2)
        print()
        return
    for case in plan.cases:
        needs = f"{case.needs_bytes / 1e9:8.2f} GB" if case.needs_bytes is not None else "       ? GB"
        note = f"  {case.note}" if case.note else ""
        print(folded(f"{case.case_id}  {case.status:<11} {needs} {case.seconds:6.0f} s  {case.case}{note}", 14))
    ready = sum(case.status == "ok" for case in plan.cases)
    minutes, seconds = divmod(round(plan.seconds), 60)
    print(
        f"\n{len(plan.cases)} cases, {ready} to measure on {plan.device} "
        f"({plan.free_bytes / 1e9:.1f} GB free); about {minutes}:{seconds:02d} min"
    )


def _seconds(resolution: Resolution, sweep: Sweep, device: str) -> float:
    cores = len(os.sched_getaffinity(0)) if device == "cpu" else 1
    rate = cores * ASSUMED_FLOPS_PER_S[device.partition(":")[0]]
    calls = CALLS * (resolution.flops or 0) / rate
    return min(CASE_S + max(sweep.budget, calls), sweep.timeout)

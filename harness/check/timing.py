"""Tier 2: times pairs, decides each case, and measures again what is not ok.

On one CPU thread the process' own CPU time decides: a neighbour that takes the core does not count in it. What waits
rather than computes does not either, so the wall clock decides beside it, by the same rule, and a case is regressed
where one of the two says so. Elsewhere the wall clock decides alone.

findings, medians = judge({"anchor …": (base_case, head_case)}, rounds, pairs=12, seed=0)
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace

from harness.check.decide import UNSETTLED, Clock, Decision, decide, differs, settle
from harness.check.pairs import CANARY, Record, Rounds
from harness.check.verdict import WORSE, Finding
from harness.errors import Failure
from harness.store.record import Case

SAYS: Mapping[Clock, str] = {"cpu": "CPU time of one thread", "wall": "wall clock"}
Forms = Mapping[str, tuple[Case, Case]]


def judge(cases: Forms, rounds: Rounds, *, pairs: int, seed: int) -> tuple[list[Finding], dict[str, list[float]]]:
    """A finding a case, and head's medians a process in ms. If the canary differs between the sides, all are void."""
    if not cases:
        return [], {}
    first = rounds.run(cases, pairs=pairs, seed=seed)
    findings = {name: failure(name, first) for name in cases}
    decisions = {name: _decide(name, first, seed=seed) for name, found in findings.items() if found is None}
    moved = _canary(first, seed)
    open_ = {name: cases[name] for name, found in decisions.items() if unsettled(found)}
    if open_ and not moved:
        second = rounds.run(open_, pairs=pairs, seed=seed + 1)
        moved = _canary(second, seed)
        for name in open_:
            findings[name] = failure(name, second)
            if findings[name] is None:
                decisions[name] = _settle(name, first, second, seed=seed)
    told = [findings[name] or _finding(name, decisions[name], first) for name in cases]
    medians = {
        name: [statistics.median(p.flat(name)) for p in first.processes if p.side == "head"]
        for name in decisions
    }  # fmt: skip
    return [_void(finding, moved) if moved else finding for finding in told], medians


Clocks = dict[Clock, Decision]


def _clocks(name: str, record: Record) -> tuple[Clock, ...]:
    """The clocks that decide a case, the one that is asked first at the front."""
    return ("cpu", "wall") if record.clock(name) == "cpu" else ("wall",)


def _decide(name: str, record: Record, *, seed: int) -> Clocks:
    found: Clocks = {}
    for clock in _clocks(name, record):
        found[clock] = decide(record.pairs(name, clock), seed=seed)
    return found


def _settle(name: str, first: Record, second: Record, *, seed: int) -> Clocks:
    found: Clocks = {}
    for clock in _clocks(name, first):
        if clock in _clocks(name, second):
            found[clock] = settle(first.pairs(name, clock), second.pairs(name, clock), seed=seed)
    return found


def unsettled(found: Clocks) -> bool:
    """Whether a case is measured again: what its first clock leaves open, and what the wall clock says is slower."""
    return next(iter(found.values())).verdict in UNSETTLED or ("wall" in found and found["wall"].verdict == "regressed")


def combined(found: Clocks) -> tuple[Clock, Decision]:
    """The clock that has the say and its decision: the wall clock's where it alone sees a regression or a fall."""
    clock, decision = next(iter(found.items()))
    if clock == "wall" or decision.verdict in WORSE or "wall" not in found or found["wall"].verdict not in WORSE:
        return clock, decision
    wall = found["wall"]
    return "wall", replace(
        wall, reason=f"{wall.reason}; its CPU time took ×{decision.ratio:.3f}: it waits or is preempted"
    )


def _canary(record: Record, seed: int) -> str:
    """What is wrong with this machine's moment by the clock that is asked first, or nothing."""
    for side in ("base", "head"):
        failed = record.failures(CANARY, side)
        if failed:
            raise Failure(f"the canary fails in {len(failed)} processes of {side}: {failed[0]}")
    decision = decide(record.pairs(CANARY, record.clock(CANARY)), seed=seed)
    if not differs(decision):
        return ""
    return (
        f"the canary, the same matrix product on both sides, took ×{decision.ratio:.3f} at head "
        f"(×{decision.low:.3f} to ×{decision.high:.3f}): the machine treated the sides differently"
    )


def failure(name: str, record: Record) -> Finding | None:
    """A case that some process could not time, or timed too little to count."""
    tier, verdict = 0, "failed"
    for side in ("head", "base"):
        failed = record.failures(name, side)
        if failed:
            reason = f"fails in {len(failed)} of {len(record.processes) // 2} processes at {side}: {failed[0]}"
            if side == "base":
                tier, verdict = 2, "not comparable"
            elif 2 * len(failed) < len(record.processes) // 2 and all(f.startswith("timeout") for f in failed):
                tier, verdict = 2, "inconclusive"  # a machine that stalls for minutes is no fault of head's
            break
    else:
        try:
            for clock in _clocks(name, record):
                record.pairs(name, clock)
        except ValueError as error:
            reason = str(error)
        else:
            return None
    return Finding(
        case=name, tier=tier, check="latency", verdict=verdict, reason=reason, variant=_variant(name)
    )  # fmt: skip


def _finding(name: str, found: Clocks, record: Record) -> Finding:
    clock, decision = combined(found)
    counted = record.instructions(name)
    beside = "" if counted is None else f"; instructions ×{counted:.4f}"
    return Finding(
        case=name, tier=0 if decision.verdict == "implausible" else 2, check="latency", verdict=decision.verdict,
        reason=f"{SAYS[clock]}: {decision.reason}{beside}", clock=clock, base=record.milliseconds(name, "base"),
        head=record.milliseconds(name, "head"), unit="ms", ratio=decision.ratio, low=decision.low, high=decision.high,
        variant=_variant(name),
    )  # fmt: skip


def _void(finding: Finding, why: str) -> Finding:
    if finding.verdict == "failed":
        return finding
    return replace(finding, verdict="void", reason=f"{why}; repeat on a quieter machine (it was: {finding.reason})")


def _variant(name: str) -> str:
    return name.split(" ", 1)[0].split(":", 1)[0]

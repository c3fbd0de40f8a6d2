"""Tier 2: times pairs, decides each case, and measures again what is not ok.

findings, medians = judge({"anchor …": (base_case, head_case)}, rounds, pairs=12, seed=0)
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace

from harness.check.decide import UNSETTLED, Decision, decide, differs, settle
from harness.check.pairs import CANARY, Record, Rounds
from harness.check.verdict import Finding
from harness.errors import Failure
from harness.store.record import Case

Forms = Mapping[str, tuple[Case, Case]]


def judge(cases: Forms, rounds: Rounds, *, pairs: int, seed: int) -> tuple[list[Finding], dict[str, list[float]]]:
    """A finding a case, and head's medians a process in ms. If the canary differs between the sides, all are void."""
    if not cases:
        return [], {}
    first = rounds.run(cases, pairs=pairs, seed=seed)
    findings = {name: failure(name, first) for name in cases}
    decisions = {name: decide(first.pairs(name), seed=seed) for name, found in findings.items() if found is None}
    moved = _canary(first, seed)
    unsettled = {name: cases[name] for name, found in decisions.items() if found.verdict in UNSETTLED}
    if unsettled and not moved:
        second = rounds.run(unsettled, pairs=pairs, seed=seed + 1)
        moved = _canary(second, seed)
        for name in unsettled:
            findings[name] = failure(name, second)
            if findings[name] is None:
                decisions[name] = settle(first.pairs(name), second.pairs(name), seed=seed)
    told = [findings[name] or _finding(name, decisions[name], first) for name in cases]
    medians = {
        name: [statistics.median(p.samples[name]) for p in first.processes if p.side == "head"]
        for name in decisions
    }  # fmt: skip
    return [_void(finding, moved) if moved else finding for finding in told], medians


def _canary(record: Record, seed: int) -> str:
    """What is wrong with this machine's moment, or nothing."""
    for side in ("base", "head"):
        failed = record.failures(CANARY, side)
        if failed:
            raise Failure(f"the canary fails in {len(failed)} processes of {side}: {failed[0]}")
    decision = decide(record.pairs(CANARY), seed=seed)
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
            record.pairs(name)
        except ValueError as error:
            reason = str(error)
        else:
            return None
    return Finding(
        case=name, tier=tier, check="latency", verdict=verdict, reason=reason, variant=_variant(name)
    )  # fmt: skip


def _finding(name: str, decision: Decision, record: Record) -> Finding:
    return Finding(
        case=name, tier=0 if decision.verdict == "implausible" else 2, check="latency", verdict=decision.verdict,
        reason=decision.reason, base=record.milliseconds(name, "base"), head=record.milliseconds(name, "head"),
        unit="ms", ratio=decision.ratio, low=decision.low, high=decision.high, variant=_variant(name),
    )  # fmt: skip


def _void(finding: Finding, why: str) -> Finding:
    if finding.verdict == "failed":
        return finding
    return replace(finding, verdict="void", reason=f"{why}; repeat on a quieter machine (it was: {finding.reason})")


def _variant(name: str) -> str:
    return name.split(" ", 1)[0].split(":", 1)[0]

"""What the gate says: one finding a check of a case, each with its reason in words, and the exit code of them all.

code = exit_code(findings, strict=False)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from harness.errors import FAILURE, INCONCLUSIVE, NOTHING, OK, REGRESSION

Verdict = Literal[
    "failed",
    "regressed",
    "implausible",
    "void",
    "inconclusive",
    "not gateable",
    "changed",
    "accepted",
    "new",
    "not comparable",
    "ok",
]
WORST_FIRST: tuple[Verdict, ...] = get_args(Verdict)
WORSE: tuple[Verdict, ...] = ("regressed", "implausible")
OPEN = ("void", "inconclusive", "not gateable", "changed")
EMPTY = ("new", "not comparable")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check of one case.

    tier: 0 integrity, 1 deterministic, 2 timing; check: what was looked at (definition, flops, latency, …);
    base, head: its figure on either side in `unit`; low, high: one-sided 99 % bounds of head over base; clock: that a
    time was decided by, cpu (of the process, on one thread) or wall.
    """

    case: str
    tier: int
    check: str
    verdict: Verdict
    reason: str
    base: float | None = None
    head: float | None = None
    unit: str = ""
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    variant: str = ""
    clock: str = ""


def accept(findings: Iterable[Finding], variants: Sequence[str]) -> list[Finding]:
    """The findings with every change of the named variants accepted. What failed outright stays failed."""
    return [
        replace(finding, verdict="accepted", reason=f"accepted by --accept {finding.variant}: {finding.reason}")
        if finding.variant in variants and finding.verdict in (*WORSE, "changed")
        else finding
        for finding in findings
    ]


def exit_code(findings: Sequence[Finding], *, strict: bool) -> int:
    """5 failed, 1 regressed or implausible, 4 nothing was compared, 3 something stayed open (with strict), else 0."""
    verdicts = {finding.verdict for finding in findings}
    if "failed" in verdicts:
        return FAILURE
    if verdicts & set(WORSE):
        return REGRESSION
    new = {finding.case for finding in findings if finding.check == "presence" and finding.verdict == "new"}
    if verdicts <= set(EMPTY) or new == {finding.case for finding in findings}:
        return NOTHING
    return INCONCLUSIVE if strict and verdicts & set(OPEN) else OK


def worst(findings: Iterable[Finding]) -> Finding:
    """The finding that decides, of at least one."""
    return min(findings, key=lambda finding: WORST_FIRST.index(finding.verdict))

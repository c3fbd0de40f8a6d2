"""What a run says of the moments in which its cases were measured: how many were disturbed, which, and what to do.

told(besides)           # lines for the user, the last of which says what to do; none where all was quiet
disturbance(besides)    # the same for environment.json

Each case was judged when it was measured, against the best canary that was known then. Here all canaries of the run are
held against the best that is known now, so that a run which began under load is not its own measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.machine.quiet import CANARY_BAD, Verdict
from harness.store.record import Case

MOST_NAMED = 4
DO = "stop other work (harness doctor names it) and measure again, or give the run more --patience"


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A case that has figures, where it was measured, the verdict on that moment and how often it was tried."""

    place: str
    case: Case
    verdict: Verdict
    tries: int


def best_ms(besides: Sequence[Beside], place: str) -> float | None:
    """The best canary that is known of a place by now."""
    return min((b.verdict.best_ms for b in besides if b.place == place and b.verdict.best_ms), default=None)


def suspects(besides: Sequence[Beside]) -> list[Beside]:
    """Cases that passed as quiet, beside a canary that turned out bad."""
    found = []
    for beside in besides:
        best = best_ms(besides, beside.place)
        worst = max(beside.verdict.canaries_ms, default=0.0)
        if best and worst > CANARY_BAD * best and not beside.verdict.disturbed:
            found.append(beside)
    return found


def told(besides: Sequence[Beside]) -> list[str]:
    """Warnings: the cases between bad canaries, and how many were disturbed."""
    late = suspects(besides)
    marked = [beside for beside in besides if beside.verdict.disturbed]
    saved = [beside for beside in besides if beside.tries > 1 and not beside.verdict.disturbed]
    lines = []
    bad = [
        *late,
        *(b for b in marked if b.verdict.best_ms and max(b.verdict.canaries_ms) > CANARY_BAD * b.verdict.best_ms),
    ]
    if bad:
        worst = max(bad, key=lambda b: _slower(besides, b))
        slower, best = _slower(besides, worst), best_ms(besides, worst.place) or 0.0
        lines.append(
            f"a fixed matrix product took up to {slower:.3g}× the best that this machine has shown ({best:.3g} ms) "
            f"beside {_named(bad)}"
        )
    if late or marked or saved:
        quiet = f"{len(saved)} were taken again in a quiet moment" if saved else ""
        stay = (
            f"{len(late) + len(marked)} stay marked contended, their figures may be far off" if late or marked else ""
        )
        do = f": {DO}" if stay else ""
        lines.append(
            f"{len(late) + len(marked) + len(saved)} of {len(besides)} cases were disturbed by other work; "
            f"{'; '.join(filter(None, [quiet, stay]))}{do}"
        )
    return lines


def disturbance(besides: Sequence[Beside]) -> dict[str, Any]:
    """How many cases were taken again and which were disturbed; which turned out so afterwards, and how slow."""
    marked = [beside for beside in besides if beside.verdict.disturbed]
    bests = {place: best for place in {b.place for b in besides} if (best := best_ms(besides, place)) is not None}
    return {
        "canary_best_ms": min(bests.values(), default=None),
        "cases": len(besides),
        "cases_taken_again": sum(beside.tries > 1 for beside in besides),
        "contended_cases": {beside.case.case_id: beside.verdict.reason for beside in marked},
        "suspect_cases": {beside.case.case_id: _slower(besides, beside) for beside in suspects(besides)},
    }


def _slower(besides: Sequence[Beside], beside: Beside) -> float:
    """The worst canary beside a case over the best that is known by now."""
    return max(beside.verdict.canaries_ms) / (best_ms(besides, beside.place) or 1.0)


def _named(besides: Sequence[Beside]) -> str:
    """`anchor:sdpa n=256 …, … and 3 more`."""
    names = list(dict.fromkeys(str(beside.case) for beside in besides))
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more

"""The complexity contract: growth of FLOPs and peak bytes in n and m, fitted, against what the variant declares.

findings = judge("anchor", declared, points)      # declared: flops_n, flops_m, peak_n, peak_m; points: measured sizes

Sizes keep n ≫ m ≫ d, where the declared exponents hold, and take a second or two on a CPU. Over n the fit is
c + a·n^p, from the increments between doublings: what does not depend on n (a kernel's block buffers, the m × m part of
Nyström attention) is c and not growth. Over m it is a·m^p.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from harness import stats
from harness.check.verdict import Finding
from harness.store.problem import Problem
from harness.store.record import Case, canonical_options

POINTS = 3
TOLERANCE = 0.15  # the built-in variants are within 0.08; a quadratic one is 1 off
NAMES = {"flops": "FLOPs", "peak": "peak bytes"}
D = 8
N_EXACT = (1024, 2048, 4096)
N, M_FIXED = (2048, 4096, 8192), 32
M, N_FIXED = (32, 64, 128), 32768


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measured size; a figure is None where the case gave none, and note says why."""

    n: int
    m: int | None
    flops: float | None
    peak: float | None
    note: str = ""


def sizes(case: Case) -> list[Case]:
    """The small cases over n (and m, for a variant with one) whose figures the contract of `case` is fitted on."""
    own = canonical_options(case.variant_options | Problem(causal=case.problem.causal).options)
    small = replace(case, b=1, h=1, d=D, scope="core", options=own)  # one head, and keys that grow with the queries
    if case.m is None:
        return [replace(small, n=n) for n in N_EXACT]
    return [replace(small, n=n, m=M_FIXED) for n in N] + [replace(small, n=N_FIXED, m=m) for m in M]


def judge(
    case: str, declared: Mapping[str, float] | None, points: Sequence[Point], *, at_most: bool = False
) -> list[Finding]:
    """One finding a fitted exponent. A size that failed, or a figure of zero, fails the contract.

    at_most: slower growth than declared is right as well: of causal attention, which holds sums of chunks beside.
    """
    variant = case.split(" ", 1)[0].split(":", 1)[0]

    def finding(check: str, verdict: str, reason: str) -> Finding:
        return Finding(case=case, tier=1, check=check, verdict=verdict, reason=reason, variant=variant)  # type: ignore[arg-type]

    if not declared:
        return [finding("complexity", "not comparable", f"{variant} declares no exponents")]
    broken = next((point for point in points if not point.flops or not point.peak), None)
    if broken is not None:
        size = f"n={broken.n}" + (f" m={broken.m}" if broken.m is not None else "")
        return [finding("complexity", "failed", f"no figure at {size}: {broken.note or 'zero FLOPs or bytes'}")]
    findings = []
    for axis in ("n", "m"):
        along = [point for point in points if _on_axis(point, axis)]
        if len(along) < POINTS:
            continue
        for figure in ("flops", "peak"):
            found = exponent(axis, [getattr(p, axis) for p in along], [getattr(p, figure) for p in along])
            wanted = declared[f"{figure}_{axis}"]
            off = found - wanted
            verdict = "ok" if off <= TOLERANCE and (at_most or off >= -TOLERANCE) else "regressed"
            told = f"at most {axis}^{wanted:g} (+ {TOLERANCE:g})" if at_most else f"{axis}^{wanted:g} (± {TOLERANCE:g})"
            reason = f"{NAMES[figure]} grow as {axis}^{found:.2f}, declared {told}"
            findings.append(finding(f"{figure} over {axis}", verdict, reason))
    return findings


def exponent(axis: str, x: Sequence[float], y: Sequence[float]) -> float:
    """p of y = c + a·x^p over n (x doubles), of y = a·x^p over m. 0 for figures that do not grow."""
    if axis == "m":
        return stats.power_law(x, y).exponent
    grown = [after - before for before, after in pairwise(y)]
    if min(grown) <= 0:
        return 0.0
    return stats.power_law(x[1:], grown).exponent


def _on_axis(point: Point, axis: str) -> bool:
    if axis == "n":
        return point.n != N_FIXED
    return point.n == N_FIXED

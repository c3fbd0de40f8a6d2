"""Is head slower than base? One case's verdict from log-ratios of paired processes. Pure statistics, numpy only.

pairs = pair_up(slots(12), medians)      # d = log(head / base) of each pair; log-ratios within one side
decision = decide(pairs)
if decision.verdict in UNSETTLED: decision = settle(pairs, fresh_pairs)

The estimate is the median of d. Its one-sided 99 % bounds come from a bootstrap over pairs, never over samples: the
samples of one process share its memory layout and its moment, so they are not independent.

    δ = max(5 %, floor);   floor = 99 % bootstrap bound of |median| of the same-side log-ratios

    regressed      lower bound > log(1 + δ)
    not gateable   floor > 15 %: this machine cannot tell
    ok             upper bound < log(1 + δ)
    inconclusive   else

What is not ok is measured again on fresh processes. Then it is regressed if all pairs together say so and the median of
either set lies beyond the limit: a regression recurs, or it is inconclusive. A floor, too, is surer of more pairs.

A slowdown that is certain even against a floor over 15 % is still a regression. The bootstrap draws each resample and
its mirror image, so that exchanging base and head exchanges the bounds exactly; values are sorted first, so that their
order does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from harness.stats import finite

Clock = Literal["cpu", "wall"]
Outcome = Literal["ok", "regressed", "inconclusive", "not gateable", "implausible"]

PAIRS, PAIRS_THOROUGH, PAIRS_QUICK = 12, 20, 8
FEWEST_PAIRS = 7  # 2⁻⁷ < 1 %: with fewer, not even the whole range bounds the median at 99 %
FEWEST_SAME_SIDE = 5
CONFIDENCE = 0.99
DRAWS = 4000
SMALLEST_CHANGE = 0.05
LARGEST_FLOOR = 0.15
UNSETTLED = ("regressed", "inconclusive", "not gateable")
IMPLAUSIBLE_BELOW = 0.2


@dataclass(frozen=True)
class Pairs:
    """Log-ratios of neighbouring processes: head over base, and between processes of one side."""

    differences: tuple[float, ...]
    same_side: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One case's verdict. ratio: head over base; low, high: its one-sided 99 % bounds; floor, delta: fractions."""

    verdict: Outcome
    reason: str
    ratio: float
    low: float
    high: float
    floor: float
    delta: float
    pairs: int


def decide(pairs: Pairs, *, seed: int = 0) -> Decision:
    """The verdict of one set of pairs. Raises ValueError for NaN, infinity and too few pairs."""
    d, same = finite(pairs.differences), finite(pairs.same_side)
    if len(d) < FEWEST_PAIRS or len(same) < FEWEST_SAME_SIDE:
        raise ValueError(
            f"{len(d)} pairs and {len(same)} same-side pairs; a 99 % bound needs at least {FEWEST_PAIRS} and "
            f"{FEWEST_SAME_SIDE}"
        )
    low, high = median_bounds(d, seed=seed)
    noise = floor_of(same, seed=seed)
    limit = max(math.log1p(SMALLEST_CHANGE), noise)
    verdict = _verdict(float(np.median(d)), low, high, noise, limit)
    decision = Decision(
        verdict=verdict, reason="", ratio=math.exp(float(np.median(d))), low=math.exp(low), high=math.exp(high),
        floor=math.expm1(noise), delta=math.expm1(limit), pairs=len(d),
    )  # fmt: skip
    return replace(decision, reason=_reason(decision))


def settle(first: Pairs, second: Pairs, *, seed: int = 0) -> Decision:
    """The verdict on a case that was UNSETTLED by the first set of pairs, with a second set from fresh processes."""
    before, fresh = decide(first, seed=seed), decide(second, seed=seed + 1)
    both = Pairs(first.differences + second.differences, first.same_side + second.same_side)
    decision = decide(both, seed=seed)
    again = f"first ×{before.ratio:.3f}, then ×{fresh.ratio:.3f} on fresh processes"
    if decision.verdict == "regressed" and min(before.ratio, fresh.ratio) > 1 + decision.delta:
        return replace(decision, reason=f"{decision.reason}; it recurred: {again}")
    if "regressed" in (before.verdict, decision.verdict):
        how = "slower at first, but it did not recur" if before.verdict == "regressed" else "slower, but not both times"
        return replace(decision, verdict="inconclusive", reason=f"{how}: {again}")
    return replace(decision, reason=f"{decision.reason}; {again}")


def differs(canary: Decision) -> bool:
    """Whether a calculation that is the same on both sides took longer on one: then the run says nothing."""
    return canary.low > 1 + canary.delta or canary.high < 1 / (1 + canary.delta)


def median_bounds(values: ArrayLike, *, seed: int = 0) -> tuple[float, float]:
    """One-sided 99 % lower and upper bounds of the median, by a symmetric seeded bootstrap."""
    low, high = np.quantile(_medians(finite(values), seed), [1 - CONFIDENCE, CONFIDENCE])
    return float(low), float(high)


def floor_of(same_side: ArrayLike, *, seed: int = 0) -> float:
    """How far the median log-ratio of identical code strays from zero here: the 99 % bootstrap bound of |median|."""
    return float(np.quantile(np.abs(_medians(finite(same_side), seed)), CONFIDENCE))


def slots(pairs: int) -> list[str]:
    """Sides in the order their processes run, in blocks base head head base; `pairs` is even."""
    if pairs < 2 or pairs % 2:
        raise ValueError(f"{pairs} pairs do not fill blocks of base head head base; take an even number")
    return ["base", "head", "head", "base"] * (pairs // 2)


def pair_up(sides: Sequence[str], values: Sequence[float]) -> Pairs:
    """The pairs in positive figures of processes in the order of `slots`. A block base head head base holds two pairs,
    0 1 and 2 3, and two pairs of one side, 1 2 and 0 3.

    Raises ValueError when the sides are not in that order or a figure is not a positive number.
    """
    figures = finite(values)
    if np.any(figures <= 0):
        raise ValueError(f"{int(np.sum(figures <= 0))} of {len(figures)} figures are not positive")
    return pair_logs(sides, np.log(figures)[:, None])


def pair_logs(sides: Sequence[str], logs: np.ndarray) -> Pairs:
    """The same from logarithms, a row a process and a column a turn: a pair's figure is the median over its turns."""
    if list(sides) != slots(len(sides) // 2) or len(sides) != len(logs):
        raise ValueError("the processes are not in blocks of base head head base, one figure each")
    signed = np.where((np.array(sides) == "head")[:, None], logs, -logs)
    blocks = logs.reshape(-1, 4, logs.shape[1])
    same = np.stack([blocks[:, 2] - blocks[:, 1], blocks[:, 3] - blocks[:, 0]], axis=1)
    differences = np.median(signed[0::2] + signed[1::2], axis=1)
    return Pairs(tuple(differences.tolist()), tuple(np.median(same, axis=2).ravel().tolist()))


def _verdict(median: float, low: float, high: float, noise: float, limit: float) -> Outcome:
    if median < math.log(IMPLAUSIBLE_BELOW):
        return "implausible"
    if low > limit:
        return "regressed"
    if noise > math.log1p(LARGEST_FLOOR):
        return "not gateable"
    return "ok" if high < limit else "inconclusive"


def _reason(decision: Decision) -> str:
    figure = f"×{decision.ratio:.3f} over {decision.pairs} pairs"
    limit = f"×{1 + decision.delta:.3f}"
    if decision.delta > SMALLEST_CHANGE:
        limit += " (this case's own noise)"
    return {
        "ok": f"{figure}: at most ×{decision.high:.3f} with 99 % confidence, within the limit {limit}",
        "regressed": f"{figure}: at least ×{decision.low:.3f} with 99 % confidence, beyond the limit {limit}",
        "inconclusive": (
            f"{figure}: ×{decision.low:.3f} to ×{decision.high:.3f} encloses the limit {limit}; "
            "--thorough takes more pairs"
        ),
        "not gateable": (
            f"{figure}, but processes of identical code differ by up to {100 * decision.floor:.0f} % here, over "
            f"{100 * LARGEST_FLOOR:.0f} %: take a quieter machine or a longer case"
        ),
        "implausible": (
            f"{figure}: under a fifth of base's time is no improvement to believe unseen; look whether the work is "
            "still done"
        ),
    }[decision.verdict]


def _medians(values: np.ndarray, seed: int) -> np.ndarray:
    """Medians of DRAWS resamples, half of them the mirror images of the other half.

    The values are sorted, so the middle of a resample is found by sorting small whole numbers, which is quick.
    """
    ordered, count = np.sort(values), len(values)
    picks = np.random.default_rng(seed).integers(0, count, size=(DRAWS // 2, count))
    picks = np.sort(picks.astype(np.min_scalar_type(count)), axis=1)
    low, high = (picks[:, middle].astype(np.intp) for middle in ((count - 1) // 2, count // 2))
    mirrored = ordered[count - 1 - high] + ordered[count - 1 - low]
    return np.concatenate([ordered[low] + ordered[high], mirrored]) / 2

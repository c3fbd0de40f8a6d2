"""The trial: one fixed matrix product timed again and again, and what its steadiness says of the effects to be seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

BLOCKS = 10  # of a trial; the median of a block stands for the measurement of one case
FLOOR = math.sqrt(2) * 0.01  # two medians, each known to 1 %: what a run's stopping rule gives at best
POWER = (1.96 + 0.84) * math.sqrt(2)  # standard deviations: 5 % false alarms, 80 % found, a difference of two cases


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What the samples say. spread, half_width, drift, noise and effect are fractions of the median.

    spread: p80/p20 − 1. drift: the second half's median over the first half's, minus 1. noise: standard deviation of
    the logarithms of the blocks' medians. effect: the smallest to be told apart, max(floor, exp(POWER·noise) − 1,
    |drift|).
    """

    product: str
    samples: int
    median_ms: float
    half_width: float
    spread: float
    drift: float
    noise: float
    effect: float
    floor: float = FLOOR

    @classmethod
    def of(cls, samples_ms: Sequence[float], product: str) -> Trial:
        """The trial of at least 4 positive samples, in the order in which they were taken. Raises ValueError."""
        import numpy as np  # here: the command's help and the environment come without it

        from harness import stats

        values = stats.finite(samples_ms)
        if len(values) < 4 or np.any(values <= 0):
            raise ValueError(f"{len(values)} samples; a trial needs at least 4, all positive")
        summary = stats.summarise(values)
        first, second = np.array_split(values, 2)
        drift = float(np.median(second) / np.median(first) - 1)
        blocks = np.array_split(values, min(BLOCKS, len(values) // 2))
        noise = float(np.std([math.log(np.median(block)) for block in blocks], ddof=1))
        return cls(
            product=product, samples=summary.samples, median_ms=summary.median, half_width=summary.half_width,
            spread=summary.p80 / summary.p20 - 1, drift=drift, noise=noise,
            effect=max(FLOOR, math.expm1(POWER * noise), abs(drift)),
        )  # fmt: skip

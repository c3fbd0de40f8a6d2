"""Steps in a series of figures: where its level changes for good, with a stated rate of false ones. numpy only.

for step in find([5.3, 5.2, 5.3, 5.3, 6.4, 6.5, 6.4, 6.5, 6.4, 6.5]): print(step.at, step.ratio, step.p)

A series is split where the ranks before and after differ most; the split counts if no more than FALSE of the series'
own reorderings split as far. Of series that only vary, in whatever distribution but without memory, a share of FALSE
shows a step. Ranks let one wild figure pass for what it is; then each side is looked at in the same way.

Source: Pettitt 1979, Applied Statistics 28, the statistic; here standardised, and by permutations in place of its
asymptotic law, which few points do not follow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

FALSE = 0.01  # of stable series that show a step
DRAWS = 1999  # reorderings; p is a multiple of 1 / (DRAWS + 1)
SHORTEST = 2  # points on each side: a single one may be an accident
FEWEST = 10  # of 9 points the two sides apart are no surer than 1 in 63
LEAST = 0.01  # of a ratio: a level that differs by less is not told
HELD = 0.95  # of the places at which the step may be


@dataclass(frozen=True, kw_only=True)
class Step:
    """A change of level: `at` is the first point after it, and with 95 % it lies in first … last.

    ratio: median after over median before, up to the neighbouring steps; p: the share of reorderings that split as far.
    """

    at: int
    first: int
    last: int
    ratio: float
    p: float


def find(values: Sequence[float], *, false: float = FALSE, draws: int = DRAWS, seed: int = 0) -> list[Step]:
    """The steps of a series, by place; none of under FEWEST points. Raises ValueError unless all are above 0."""
    series = np.asarray(values, dtype=float)
    if not (np.isfinite(series).all() and (series > 0).all()):
        raise ValueError("steps are sought in finite values above zero")
    found: list[tuple[int, int, int, float]] = []
    generator = np.random.default_rng(seed)

    def split(low: int, high: int) -> None:
        if high - low < FEWEST:
            return
        ranks = _ranks(series[low:high])
        at, p = _permuted(ranks, draws, generator)
        if p > false:
            return
        first, last = _places(ranks)
        found.append((low + at, low + first, low + last, p))
        split(low, low + at)
        split(low + at, high)

    split(0, len(series))
    found.sort()
    ends = [0, *(at for at, *_ in found), len(series)]
    told = []
    for place, (at, first, last, p) in enumerate(found):
        before, after = (float(np.median(series[a:b])) for a, b in ((ends[place], at), (at, ends[place + 2])))
        if abs(after / before - 1) >= LEAST:
            told.append(Step(at=at, first=first, last=last, ratio=after / before, p=p))
    return told


def changes(values: Sequence[float]) -> list[Step]:
    """The steps of figures that do not vary by themselves (FLOPs, kernels): every change, where it is."""
    return [
        Step(at=at, first=at, last=at, ratio=after / before if before else math.inf, p=0.0)
        for at, (before, after) in enumerate(pairwise(values), 1) if before != after
    ]  # fmt: skip


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks less their mean, equal values sharing theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    upper = np.cumsum(counts)
    shared = upper - (counts - 1) / 2
    return shared[inverse] - (len(values) + 1) / 2


def _splits(ranks: np.ndarray) -> np.ndarray:
    """For each split of each row: how far the sum of ranks before it is from none, over its standard deviation."""
    count = ranks.shape[-1]
    before = np.arange(SHORTEST, count - SHORTEST + 1)
    sums = np.abs(np.cumsum(ranks, axis=-1)[..., before - 1])
    return sums / np.sqrt(before * (count - before) / count)


def _permuted(ranks: np.ndarray, draws: int, generator: np.random.Generator) -> tuple[int, float]:
    """The likeliest split, and the share of reorderings that split at least as far, this order counted among them."""
    own = _splits(ranks)
    others = _splits(generator.permuted(np.tile(ranks, (draws, 1)), axis=1)).max(axis=1)
    far = own.max() * (1 - 1e-12)
    return int(own.argmax()) + SHORTEST, float((1 + np.count_nonzero(others >= far)) / (draws + 1))


def _places(ranks: np.ndarray) -> tuple[int, int]:
    """The first and the last place of the step that together hold 95 %, all places being as likely before.

    By the likelihood of two levels of ranks with normal errors of one unknown size: its sum of squares to −count / 2.
    """
    count = len(ranks)
    left = float(ranks @ ranks) - _splits(ranks) ** 2
    logs = -count / 2 * np.log(np.maximum(left, 1e-9 * count))
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    order = np.argsort(-weights)
    kept = order[: int(np.searchsorted(np.cumsum(weights[order]), HELD)) + 1]
    return int(kept.min()) + SHORTEST, int(kept.max()) + SHORTEST

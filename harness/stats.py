"""Medians, their intervals, bootstrap and power-law fits: numpy only.

low, high = median_interval(samples)          # 95 % for the median, distribution-free
fit = power_law(n, latency_ms)                # exponent with its standard error
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

FEWEST_FOR_95 = 6  # samples whose range holds the median with 95 %: 1 − 2^(1−6) = 97 %
LARGEST_LOG = 709.0  # whose exponential is a number
RESAMPLED = 1 << 20  # values drawn at a time by the bootstrap


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Median of a sample with its interval and the 20th and 80th percentiles, in the sample's unit."""

    median: float
    ci_low: float
    ci_high: float
    p20: float
    p80: float
    samples: int

    @property
    def half_width(self) -> float:
        """Half the interval's width relative to the median; infinite when the median is zero."""
        return (self.ci_high - self.ci_low) / 2 / self.median if self.median else math.inf


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """y = factor · x^exponent by least squares on logarithms; error is the exponent's standard error."""

    exponent: float
    factor: float
    error: float
    points: int


def summarise(samples: ArrayLike, *, confidence: float = 0.95) -> Summary:
    """The summary of at least one finite sample. Raises ValueError for none and for NaN or infinity."""
    ordered = np.sort(finite(samples))
    low, high = median_interval(ordered, confidence=confidence)
    p20, p80 = np.quantile(ordered, [0.2, 0.8])
    return Summary(
        median=float(np.median(ordered)), ci_low=low, ci_high=high, p20=float(p20), p80=float(p80), samples=len(ordered)
    )


def median_interval(samples: ArrayLike, *, confidence: float = 0.95) -> tuple[float, float]:
    """A distribution-free interval for the median from order statistics.

    The k-th smallest and k-th largest of n samples enclose the median with probability 1 − 2·P(Binomial(n, ½) < k);
    k is the largest that keeps this at or above `confidence`. Under 6 samples no such k exists for 95 % and the whole
    range is returned, whose coverage 1 − 2^(1−n) is lower.
    """
    ordered = np.sort(finite(samples))
    count = len(ordered)
    rank, tail, term = 0, 0.0, 0.5**count if count < 1000 else 0.0
    if count >= 1000:  # the normal approximation of the binomial, where its powers of one half underflow
        rank = math.floor(count / 2 - normal_quantile(0.5 + confidence / 2) * math.sqrt(count) / 2) - 1
    else:
        while rank < count // 2 and 2 * (tail + term) <= 1 - confidence:
            tail += term
            term *= (count - rank) / (rank + 1)
            rank += 1
        rank -= 1
    rank = min(max(rank, 0), (count - 1) // 2)
    return float(ordered[rank]), float(ordered[count - 1 - rank])


def ratio_interval(
    numerator: ArrayLike, denominator: ArrayLike, *, confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Ratio of two medians with a seeded bootstrap interval over both samples: (ratio, low, high)."""
    top, bottom = finite(numerator), finite(denominator)
    if np.any(bottom <= 0):
        raise ValueError("a ratio needs positive denominators")
    generator = np.random.default_rng(seed)
    ratios = _resampled_medians(top, draws, generator) / _resampled_medians(bottom, draws, generator)
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(np.median(top) / np.median(bottom)), float(low), float(high)


def proportion_interval(right: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a proportion from how many of the trials were right.

    Source: Wilson 1927, Journal of the American Statistical Association 22. Raises ValueError for impossible counts.
    """
    if not 0 <= right <= trials or not trials:
        raise ValueError(f"{right} right of {trials} is not a proportion")
    z = normal_quantile((1 + confidence) / 2)
    share, weight = right / trials, z * z / trials
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return 0.0 if not right else low, 1.0 if right == trials else high  # exact at the ends, where rounding is not


def power_law(x: ArrayLike, y: ArrayLike) -> PowerLaw:
    """Fit y = factor · x^exponent. Raises ValueError unless both are positive with two or more distinct x."""
    xs, ys = finite(x), finite(y)
    if len(xs) != len(ys) or len(set(xs.tolist())) < 2 or np.any(xs <= 0) or np.any(ys <= 0):
        raise ValueError("a power law needs positive x and y of one length with at least two distinct x")
    log_x, log_y = np.log(xs), np.log(ys)
    centred = log_x - log_x.mean()
    spread = float(centred @ centred)
    exponent = float(centred @ log_y) / spread
    residual = log_y - log_y.mean() - exponent * centred
    error = math.sqrt(float(residual @ residual) / (len(xs) - 2) / spread) if len(xs) > 2 else math.nan
    scale = float(log_y.mean() - exponent * log_x.mean())
    factor = math.exp(scale) if scale < LARGEST_LOG else math.inf  # x close together: an exponent in the thousands
    return PowerLaw(exponent=exponent, factor=factor, error=error, points=len(xs))


def finite(samples: ArrayLike) -> np.ndarray:
    """The samples as a float64 vector. Raises ValueError for none and for NaN or infinity."""
    values = np.asarray(samples, dtype=np.float64).ravel()
    if values.size == 0:
        raise ValueError("no samples")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{int(np.sum(~np.isfinite(values)))} of {values.size} samples are not finite")
    return values


def normal_quantile(probability: float) -> float:
    """The standard normal's quantile."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)


def drift(samples: Sequence[float]) -> float:
    """How far a canary moved: the median of the last third over that of the first third, minus one."""
    values = finite(samples)
    third = max(1, len(values) // 3)
    return float(np.median(values[-third:]) / np.median(values[:third]) - 1)


def _resampled_medians(values: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
    """Medians of `draws` resamples, a few at a time; the samples sorted first, so that their order is no matter."""
    ordered, count = np.sort(values), len(values)
    each = max(1, RESAMPLED // count)
    picks = (generator.integers(0, count, size=(min(each, draws - at), count)) for at in range(0, draws, each))
    return np.concatenate([np.median(ordered[pick], axis=1) for pick in picks])

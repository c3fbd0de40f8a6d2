"""Medians, intervals, ratios and power laws: properties over all samples, and coverage on simulated ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import stats

SAMPLES = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=80)


@given(SAMPLES, st.randoms(use_true_random=False))
def test_order_is_no_matter(samples: list[float], random: object) -> None:
    mixed = list(samples)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert stats.summarise(mixed) == stats.summarise(samples)
    assert stats.median_interval(mixed) == stats.median_interval(samples)
    assert stats.ratio_interval(mixed, samples, draws=50) == stats.ratio_interval(samples, mixed, draws=50)


@given(SAMPLES)
def test_a_summary_is_of_its_samples(samples: list[float]) -> None:
    found = stats.summarise(samples)
    assert found.median == np.median(samples)
    assert found.samples == len(samples)
    assert min(samples) <= found.ci_low <= found.median <= found.ci_high <= max(samples)
    assert found.p20 <= found.p80
    assert {found.ci_low, found.ci_high} <= set(samples)
    assert found.half_width == pytest.approx((found.ci_high - found.ci_low) / 2 / found.median)


@given(SAMPLES, st.floats(1e-3, 1e3))
def test_the_unit_is_no_matter(samples: list[float], unit: float) -> None:
    found, scaled = stats.summarise(samples), stats.summarise([unit * x for x in samples])
    assert scaled.median == pytest.approx(unit * found.median)
    assert scaled.ci_low == pytest.approx(unit * found.ci_low)
    assert scaled.ci_high == pytest.approx(unit * found.ci_high)


@pytest.mark.parametrize("ask", [stats.summarise, stats.median_interval, stats.finite, stats.drift])
@pytest.mark.parametrize("wrong", [[], [1.0, math.nan], [math.inf], [-math.inf, 2.0]])
def test_none_and_nan_are_refused(ask: Callable[[list[float]], object], wrong: list[float]) -> None:
    with pytest.raises(ValueError, match=r"no samples|not finite"):
        ask(wrong)


@pytest.mark.parametrize("count", [6, 7, 10, 25, 60, 200, 999, 1000, 4000])
def test_the_interval_has_the_binomials_coverage(count: int) -> None:
    """1 - 2 P(Binomial(n, 1/2) < k) for the k-th smallest and largest: at least 95 %, and for the next k not."""
    low, high = (round(x) for x in stats.median_interval(np.arange(count)))
    assert low + high == count - 1
    terms = [math.comb(count, i) for i in range(low + 2)]

    def coverage(k: int) -> float:
        return 1 - 2 * sum(terms[:k]) / 2**count

    assert coverage(low + 1) >= 0.95 - 1e-12
    assert coverage(low + 2) < 0.95 or count >= 1000  # from 1000 on by the normal approximation
    assert coverage(low + 1) < 0.97 or count < 100


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_samples_give_their_whole_range(count: int) -> None:
    assert stats.median_interval(range(count)) == (0, count - 1)


@pytest.mark.parametrize("count", [10, 31, 100])
def test_the_interval_covers_the_true_median(count: int) -> None:
    """Skewed times, as latencies are: 2000 trials, true median 1; the share that covers it is 95 to 98.5 %."""
    times = np.exp(np.random.default_rng(count).standard_normal((2000, count)))
    covered = [low <= 1 <= high for low, high in map(stats.median_interval, times)]
    assert 0.94 <= np.mean(covered) <= 0.985


def test_the_ratio_covers_the_true_ratio() -> None:
    random = np.random.default_rng(5)
    trials = 300
    covered = 0
    for _ in range(trials):
        top, bottom = 1.3 * np.exp(0.2 * random.standard_normal((2, 40)))
        ratio, low, high = stats.ratio_interval(top, bottom / 1.3, draws=400)
        assert low <= ratio <= high
        covered += low <= 1.3 <= high
    assert 0.91 <= covered / trials <= 0.99


def test_a_ratio_is_seeded_and_needs_positive_times() -> None:
    a, b = np.random.default_rng(0).random((2, 30)) + 1
    assert stats.ratio_interval(a, b) == stats.ratio_interval(a, b)
    assert stats.ratio_interval(a, b, seed=1) != stats.ratio_interval(a, b)
    assert stats.ratio_interval(a, a)[0] == 1
    assert stats.ratio_interval([2.0], [4.0]) == (0.5, 0.5, 0.5)
    for wrong in ([0.0, 1.0], [-1.0], [], [math.nan]):
        with pytest.raises(ValueError, match=r"positive|no samples|not finite"):
            stats.ratio_interval(a, wrong)


def test_a_proportion_has_wilsons_interval() -> None:
    """Its known ends for 10 trials, and its defining equation: |p − p̂| = z·√(p(1−p)/n) at both ends p."""
    assert stats.proportion_interval(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert stats.proportion_interval(10, 10) == (pytest.approx(0.7225, abs=1e-4), 1.0)
    for right, trials, confidence in ((7, 20, 0.95), (955, 1000, 0.95), (1, 4096, 0.99)):
        z = stats.normal_quantile((1 + confidence) / 2)
        low, high = stats.proportion_interval(right, trials, confidence=confidence)
        assert low < right / trials < high
        for end in (low, high):
            assert abs(end - right / trials) == pytest.approx(z * math.sqrt(end * (1 - end) / trials))
    for right, trials in ((-1, 4), (5, 4), (0, 0)):
        with pytest.raises(ValueError, match="is not a proportion"):
            stats.proportion_interval(right, trials)


def test_many_samples_need_little_memory() -> None:
    """Ten thousand samples and two thousand draws would be 160 MB at once."""
    many = np.random.default_rng(0).random(10_000) + 1
    ratio, low, high = stats.ratio_interval(many, many, draws=200)
    assert low < ratio < high
    assert high - low < 0.05


@given(
    st.floats(-3, 3), st.floats(1e-6, 1e6),
    st.lists(st.integers(1, 1 << 20), min_size=2, max_size=12, unique=True),
)  # fmt: skip
def test_a_power_law_is_recovered(exponent: float, factor: float, x: list[int]) -> None:
    fit = stats.power_law(x, [factor * value**exponent for value in x])
    spread = math.log(max(x) / min(x))
    assert fit.exponent == pytest.approx(exponent, abs=1e-9 / spread + 1e-9)
    assert math.log(fit.factor) == pytest.approx(math.log(factor), abs=1e-6 / spread + 1e-6)
    assert fit.points == len(x)
    assert math.isnan(fit.error) if len(x) == 2 else fit.error < 1e-6 / spread + 1e-6


def test_a_noisy_power_law_lies_within_its_error() -> None:
    random, n = np.random.default_rng(3), np.array([1024 << k for k in range(7)])
    inside = 0
    for _ in range(200):
        fit = stats.power_law(n, n**2.0 * np.exp(0.1 * random.standard_normal(len(n))))
        inside += abs(fit.exponent - 2) < 2.571 * fit.error  # Student's t with 5 degrees of freedom, 95 %
    assert 0.9 <= inside / 200 <= 0.99


@pytest.mark.parametrize(
    ("x", "y"), [([1], [1]), ([2, 2], [1, 3]), ([1, 2], [1]), ([0, 1], [1, 2]), ([1, 2], [0, 1]), ([1, 2], [1, -1])]
)
def test_what_is_no_power_law_is_refused(x: list[float], y: list[float]) -> None:
    with pytest.raises(ValueError, match="needs positive x and y"):
        stats.power_law(x, y)


def test_drift_compares_the_ends() -> None:
    assert stats.drift([1, 1, 9, 9, 2, 2]) == 1
    assert stats.drift([5]) == 0
    assert stats.drift([2, 1]) == -0.5

"""Steps in a series, by simulation: how often a stable one shows one, and whether real ones are found in place."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from harness.answers import steps
from harness.answers.steps import FALSE, FEWEST, changes, find

SERIES, FEW_DRAWS = 600, 399
NOISES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda random, count: random.normal(0, 0.03, count),
    "skewed, as times are": lambda random, count: random.exponential(0.05, count),
    "wild": lambda random, count: 0.02 * random.standard_t(1.5, count),
    "two levels at random": lambda random, count: 0.2 * random.integers(0, 2, count) + random.normal(0, 0.01, count),
    "rounded": lambda random, count: np.round(random.normal(0, 0.03, count), 2),
}


def binomial_limit(trials: int, share: float) -> int:
    """So many hits of a share are exceeded once in a thousand."""
    return math.ceil(trials * share + 3.1 * math.sqrt(trials * share * (1 - share)))


@pytest.mark.parametrize("count", [FEWEST, 17, 40])
@pytest.mark.parametrize("noise", NOISES)
def test_stable_series_show_a_step_as_seldom_as_is_said(noise: str, count: int) -> None:
    """Whatever the distribution: a permutation test keeps its rate. Small steps count here, which are not told else."""
    random = np.random.default_rng(11)
    least, steps.LEAST = steps.LEAST, 0.0
    try:
        shown = sum(
            bool(find(np.exp(NOISES[noise](random, count)).tolist(), draws=FEW_DRAWS, seed=at)) for at in range(SERIES)
        )
    finally:
        steps.LEAST = least
    assert shown <= binomial_limit(SERIES, FALSE)


def test_the_rate_is_that_which_is_asked_for() -> None:
    """At one in five it is one in five: the test is not merely shy."""
    random = np.random.default_rng(5)
    shown = sum(
        bool(find(np.exp(random.normal(0, 0.5, 20)).tolist(), false=0.2, draws=FEW_DRAWS, seed=at)) for at in range(400)
    )
    assert 0.13 < shown / 400 < 0.27


@pytest.mark.parametrize("at", [5, 10, 15])
def test_a_step_of_ten_percent_is_found_where_it_is(at: int) -> None:
    random = np.random.default_rng(at)
    found, held = 0, 0
    for seed in range(200):
        level = np.where(np.arange(20) < at, 1.0, 1.1)
        told = find((level * np.exp(random.normal(0, 0.03, 20))).tolist(), draws=FEW_DRAWS, seed=seed)
        if told:
            step = max(told, key=lambda one: abs(math.log(one.ratio)))  # one in a hundred sides shows another
            found += 1
            held += step.first <= at <= step.last
            assert 1.02 < step.ratio < 1.25
    assert found > 0.9 * 200
    assert held > 0.88 * found  # of 95 % asked; ranks are not quite normal


def test_several_steps_are_found_and_levels_are_between_them() -> None:
    random = np.random.default_rng(3)
    level = np.repeat([10.0, 13.0, 11.0], 15)
    told = find((level * np.exp(random.normal(0, 0.01, 45))).tolist())
    assert [step.at for step in told] == [15, 30]
    assert told[0].ratio == pytest.approx(1.3, rel=0.02)
    assert told[1].ratio == pytest.approx(11 / 13, rel=0.02)
    assert all(step.first <= step.at <= step.last and step.p <= FALSE for step in told)


def test_one_wild_figure_is_no_step() -> None:
    for place in range(20):
        values = [5.0 + 0.01 * (at % 3) for at in range(20)]
        values[place] = 60.0
        assert find(values) == []


def test_too_few_points_show_none_and_fewest_can_show_one() -> None:
    values = [1.0, 1.01, 1.02, 1.03, 1.04, 2.0, 2.01, 2.02, 2.03, 2.04]
    assert len(values) == FEWEST
    assert [step.at for step in find(values)] == [5]
    assert find(values[:-1]) == []


def test_a_level_that_differs_by_less_than_is_told_is_none() -> None:
    values = [1.0 + 1e-6 * at for at in range(10)] + [1.005 + 1e-6 * at for at in range(10)]
    assert find(values) == []


def test_the_same_series_gives_the_same_steps() -> None:
    values = np.exp(np.random.default_rng(1).normal(0, 0.3, 30)).tolist()
    assert find(values) == find(values)
    assert find([3.0] * 30) == []


@pytest.mark.parametrize("values", [[0.0] * 12, [1.0] * 11 + [math.nan], [-1.0] * 12])
def test_figures_that_are_none_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite values above zero"):
        find(values)


def test_figures_that_do_not_vary_step_at_every_change() -> None:
    told = changes([4.0, 4.0, 6.0, 6.0, 3.0])
    assert [(step.at, step.ratio) for step in told] == [(2, 1.5), (4, 0.5)]
    assert changes([0.0, 1.0])[0].ratio == math.inf
    assert changes([]) == []

"""The gate's statistics: invariances, coverage, refusals, and its behaviour on simulated machines."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.check import decide as module
from harness.check.decide import Pairs, decide, differs, floor_of, median_bounds, pair_up, settle, slots

FIGURES = st.floats(-0.5, 0.5, allow_nan=False).map(lambda x: round(x, 6))
LISTS = st.lists(FIGURES, min_size=7, max_size=24)


def simulated(generator: np.random.Generator, *, slower: float, noise: float, pairs: int = 12) -> Pairs:
    """Pairs of processes whose medians have log-normal noise, with a burst of a neighbour now and then."""
    sides = slots(pairs)
    logs = generator.normal(0, noise / math.sqrt(2), len(sides))
    logs += np.where(generator.random(len(sides)) < 0.05, generator.exponential(0.3, len(sides)), 0)
    logs += np.array([math.log1p(slower) if side == "head" else 0.0 for side in sides])
    return pair_up(sides, np.exp(logs).tolist())


def whole(generator: np.random.Generator, **how: float) -> str:
    """The verdict with its second round."""
    first = simulated(generator, **how)  # type: ignore[arg-type]
    decision = decide(first)
    if decision.verdict in module.UNSETTLED:
        decision = settle(first, simulated(generator, **how))  # type: ignore[arg-type]
    return decision.verdict


@given(LISTS, st.randoms())
@settings(max_examples=40, deadline=None)
def test_the_order_of_pairs_does_not_matter(values, shuffler):
    mixed = values.copy()
    shuffler.shuffle(mixed)
    assert median_bounds(values) == median_bounds(mixed)
    assert floor_of(values) == floor_of(mixed)
    assert decide(Pairs(tuple(values), tuple(values))) == decide(Pairs(tuple(mixed), tuple(mixed)))


@given(LISTS)
@settings(max_examples=40, deadline=None)
def test_exchanging_the_sides_exchanges_the_bounds(values):
    low, high = median_bounds(values)
    mirrored = median_bounds([-value for value in values])
    assert mirrored == pytest.approx((-high, -low), abs=1e-12)
    assert floor_of(values) == pytest.approx(floor_of([-value for value in values]), abs=1e-12)


@given(LISTS, st.floats(-1, 1))
@settings(max_examples=40, deadline=None)
def test_a_common_factor_moves_the_bounds_by_it(values, shift):
    low, high = median_bounds(values)
    assert median_bounds([value + shift for value in values]) == pytest.approx((low + shift, high + shift), abs=1e-9)
    assert low <= np.median(values) <= high


@given(LISTS, st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 6))
@settings(max_examples=20, deadline=None)
def test_what_is_no_number_is_refused(values, strange, place):
    broken = [*values[:place], strange, *values[place:]]
    with pytest.raises(ValueError, match="not finite"):
        decide(Pairs(tuple(broken), tuple(values)))
    with pytest.raises(ValueError, match="not finite"):
        decide(Pairs(tuple(values), tuple(broken)))


@pytest.mark.parametrize("count", [0, 1, 6])
def test_too_few_pairs_are_refused(count):
    with pytest.raises(ValueError, match=r"no samples|at least 7"):
        decide(Pairs((0.0,) * count, (0.0,) * 9))
    with pytest.raises(ValueError, match=r"no samples|at least 7"):
        decide(Pairs((0.0,) * 9, (0.0,) * min(count, 4)))


@pytest.mark.parametrize("pairs", [8, 12, 20])
@pytest.mark.parametrize("kind", ["normal", "heavy", "skewed"])
def test_the_bounds_hold_as_often_as_they_say(pairs, kind):
    """One-sided 99 %: of 400 samples each bound may miss the true median about 4 times; 15 is 5 sigma away."""
    generator = np.random.default_rng(pairs)
    draw = {
        "normal": lambda: generator.normal(0, 0.04, pairs),
        "heavy": lambda: 0.03 * generator.standard_t(2, pairs),
        "skewed": lambda: generator.exponential(0.05, pairs) - 0.05 * math.log(2),
    }[kind]
    bounds = [median_bounds(draw(), seed=number) for number in range(400)]
    assert sum(low > 0 for low, _ in bounds) <= 15
    assert sum(high < 0 for _, high in bounds) <= 15


@pytest.mark.parametrize("noise", [0.01, 0.03, 0.06, 0.12, 0.3])
def test_unchanged_code_does_not_regress(noise):
    generator = np.random.default_rng(3)
    verdicts = [whole(generator, slower=0.0, noise=noise) for _ in range(100)]
    assert verdicts.count("regressed") == 0
    if noise <= 0.03:
        assert verdicts.count("ok") >= 97


@pytest.mark.parametrize(("slower", "noise", "least"), [(0.10, 0.03, 95), (0.10, 0.04, 88), (0.20, 0.06, 93)])
def test_a_slowdown_is_found(slower, noise, least):
    generator = np.random.default_rng(4)
    assert [whole(generator, slower=slower, noise=noise) for _ in range(100)].count("regressed") >= least


def test_a_slowdown_is_never_ok():
    generator = np.random.default_rng(5)
    assert [whole(generator, slower=0.15, noise=0.05) for _ in range(100)].count("ok") == 0


def test_noise_over_the_largest_floor_is_not_gateable_but_a_gross_slowdown_is_still_one():
    noisy = (0.4, -0.5, 0.3, -0.35, 0.6, -0.4, 0.2)
    unchanged = decide(Pairs((0.1, -0.2, 0.3, -0.1, 0.05, -0.3, 0.2, 0.0), noisy))
    assert unchanged.verdict == "not gateable"
    assert "quieter machine" in unchanged.reason
    assert decide(Pairs((1.5, 1.4, 1.7, 1.6, 1.5, 1.45, 1.55, 1.6), noisy)).verdict == "regressed"


def test_a_fall_below_a_fifth_is_implausible():
    assert decide(Pairs((-3.5,) * 12, (0.0,) * 11)).verdict == "implausible"


def test_a_regression_must_recur():
    slow, same = Pairs((0.12,) * 12, (0.0,) * 11), Pairs((0.0,) * 12, (0.0,) * 11)
    assert decide(slow).verdict == "regressed"
    assert settle(slow, slow).verdict == "regressed"
    assert "it recurred" in settle(slow, slow).reason
    once = settle(slow, same)
    assert once.verdict == "inconclusive"
    assert "did not recur" in once.reason


def test_a_floor_that_few_pairs_leave_open_is_settled_by_more():
    few = Pairs((0.01,) * 12, (0.0, 0.01, -0.01, 0.02, -0.02, 0.01, 0.2, -0.2, 0.19, -0.22, 0.21, 0.2))
    calm = Pairs((0.01,) * 12, (0.0, 0.01, -0.01, 0.02, -0.02, 0.01) * 2)
    assert decide(few).verdict == "not gateable"
    assert settle(few, calm).verdict == "ok"
    assert settle(few, few).verdict == "not gateable"
    slow = Pairs((0.12,) * 12, calm.same_side)
    assert settle(Pairs(slow.differences, few.same_side), slow).verdict == "regressed"
    assert "not both times" in settle(few, Pairs((0.5,) * 60, calm.same_side)).reason


def test_the_limit_is_five_percent_or_the_cases_own_noise():
    quiet = decide(Pairs((0.01,) * 12, (0.0,) * 11))
    assert quiet.delta == pytest.approx(0.05)
    noisy = decide(Pairs((0.01,) * 12, (0.1,) * 11))
    assert noisy.delta == pytest.approx(math.expm1(0.1))
    assert noisy.floor == noisy.delta


def test_a_moved_canary_is_seen_in_both_directions():
    def canary(shift: float) -> bool:
        return differs(decide(Pairs((shift,) * 12, (0.0,) * 11)))

    assert canary(0.1)
    assert canary(-0.1)
    assert not canary(0.02)


def test_pairs_are_of_neighbouring_processes():
    pairs = pair_up(slots(2), [1.0, 2.0, 4.0, 8.0])
    assert pairs.differences == pytest.approx((math.log(2), math.log(0.5)))
    assert pairs.same_side == pytest.approx((math.log(2), math.log(8)))
    assert len(pair_up(slots(12), [1.0] * 24).same_side) == 12


def test_what_the_machine_does_to_a_whole_block_cancels():
    pairs = pair_up(slots(4), [1.0, 1.1, 1.1, 1.0, 3.0, 3.3, 3.3, 3.0])
    assert pairs.differences == pytest.approx([math.log(1.1)] * 4)
    assert pairs.same_side == pytest.approx([0.0] * 4)


@pytest.mark.parametrize("sides", [["head", "base", "base", "head"], ["base", "head"] * 2, ["base"] * 4])
def test_another_order_of_sides_is_refused(sides):
    with pytest.raises(ValueError, match="blocks of base head head base"):
        pair_up(sides, [1.0] * 4)


@pytest.mark.parametrize("pairs", [0, 1, 7])
def test_pairs_fill_blocks(pairs):
    with pytest.raises(ValueError, match="even number"):
        slots(pairs)

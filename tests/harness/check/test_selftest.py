"""The self-test: its recording resumes, its trials count right, its mutants are caught, its peers answer."""

from __future__ import annotations

import random
import sys
import types

import numpy as np
import pytest

import attentions
from harness.check import account, mutants, peers, pool, rules, selftest
from harness.check.rules import Timed
from harness.errors import Failure


def synthetic(processes: int, *, noise: float = 0.02, wall: float = 0.0) -> pool.Pool:
    """A pool whose extra work takes exactly its share of CPU time; wall: the noise of the wall clock beside that."""
    generator = np.random.default_rng(0)
    recorded = []
    for _ in range(processes):
        here = np.exp(generator.normal(0, noise))
        process = {}
        for key in pool.timed():
            cpu = 5 * here * (1 + key[1] / 100) * np.exp(generator.normal(0, noise, (3, 3)))
            passed = cpu * np.exp(generator.normal(0, wall))
            process[key] = Timed(wall=passed.tolist(), cpu=cpu.tolist())
        recorded.append(process)
    return recorded


def written(folder, recorded, *, torn: str = "") -> None:
    lines = [",".join(pool.COLUMNS)]
    for number, process in enumerate(recorded):
        lines += [f"{number},{k[0]},{k[1]},{pool._text(t.wall)},{pool._text(t.cpu)}" for k, t in process.items()]
    folder.mkdir(exist_ok=True)
    (folder / pool.POOL).write_text("\n".join(lines) + "\n" + torn)


def test_the_specimens_do_their_extra_work_and_compute_the_same(tmp_path):
    (tmp_path / "specimens.py").write_text(pool.plugin())
    names = attentions.load_plugin(tmp_path / "specimens.py")
    assert set(names) == {f"{name}_{extra}" for name in pool.SPECIMENS for extra in pool.EXTRAS}
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    q = torch.randn(1, 1, 200, 16)
    for name in ("full", "anchor"):
        flops, outputs = [], []
        for extra in pool.EXTRAS:
            torch.manual_seed(0)
            core = attentions.build(f"{name}_{extra}:reference", heads=1, head_dim=16, tokens=200, anchors=8)
            with FlopCounterMode(display=False) as counter:
                outputs.append(core(q, q, q))
            flops.append(counter.get_total_flops())
        assert [f / flops[0] for f in flops] == pytest.approx([1, 1.05, 1.1, 1.15, 1.2], abs=0.003)
        assert all(torch.equal(out, outputs[0]) for out in outputs)


def test_a_pool_resumes_after_its_last_whole_block(tmp_path):
    recorded = synthetic(6)
    written(tmp_path, recorded, torn="6,full,0,1.2 3.4,1.2 3.4\n6,full,5,1.")
    assert len(pool.load(tmp_path)) == 4
    before = (tmp_path / pool.POOL).stat().st_size
    assert len(pool.load(tmp_path, repair=True)) == 4
    assert (tmp_path / pool.POOL).stat().st_size < before
    found, wanted = pool.load(tmp_path)[2]["flash", 10], recorded[2]["flash", 10]
    for clock in ("wall", "cpu"):
        assert len(found.by(clock)) == 3
        assert np.array(found.by(clock)) == pytest.approx(np.array(wanted.by(clock)), rel=1e-5)
    assert pool.load(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("old", "new"), [("\n1,full,5,", "\n2,full,5,"), ("canary,0,", "canary,5,"), (",0,4", ",0,-4")]
)
def test_a_damaged_pool_is_refused(tmp_path, old, new):
    written(tmp_path, synthetic(4, noise=0.001))
    path = tmp_path / pool.POOL
    text = path.read_text()
    assert old in text or old == ",0,4"
    path.write_text(text.replace(old, new) if old in text else text.replace(",0,5", ",0,-5"))
    with pytest.raises(Failure):
        pool.load(tmp_path)


def test_a_trial_draws_no_process_twice():
    generator = np.random.default_rng(3)
    figures = [[{0: np.log([generator.lognormal()])} for _ in range(100)]]
    [(first, second)] = selftest.draw(figures, 0, 12, random.Random(1))
    assert len(first.differences) == len(second.differences) == 12
    assert len(set(first.differences + second.differences)) == 24
    assert len(first.same_side) == 12


def test_the_parts_of_a_rule_are_drawn_alike():
    figures = [{0: np.log([1.0 + place])} for place in range(100)]
    both = selftest.draw([figures, figures], 0, 12, random.Random(1))
    assert both[0] == both[1]


def test_the_rates_of_a_made_up_pool():
    recorded = synthetic(120)
    unchanged = selftest.rate(recorded, "default", "full", 0, 60)
    assert (unchanged.rule, unchanged.regressed, unchanged.ok) == (rules.CHOSEN, 0, 60)
    assert unchanged.regressed_at_most == pytest.approx(1 - 0.05 ** (1 / 60))
    slower = selftest.rate(recorded, "default", "anchor", 15, 60)
    assert slower.regressed >= 58
    assert slower.realised_percent == pytest.approx(15, abs=1)


@pytest.mark.parametrize("rule", [name for name in rules.RULES if "cpu" in name])
def test_what_preemption_does_to_the_wall_clock_is_nothing_to_cpu_time(rule):
    recorded = synthetic(88, wall=0.3)
    assert selftest.rate(recorded, "default", "full", 10, 40, rule=rule).regressed >= 38
    assert selftest.rate(recorded, "default", "full", 10, 40, rule=rules.BEFORE).regressed <= 4
    assert selftest.rate(recorded, "default", "full", 0, 40, rule=rule).regressed == 0


def test_turns_are_paired_with_those_beside_them():
    """A machine that is three times slower from one turn to the next, for all four processes alike."""
    drift = np.repeat([1.0, 3.0, 9.0], 3).reshape(3, 3)
    (part,) = rules.RULES["cpu, turn by turn"]
    vectors = [part.of(Timed(wall=[], cpu=(factor * drift).tolist())) for factor in (1.0, 1.1, 1.1, 1.0)]
    found = rules.pairs(["base", "head", "head", "base"], vectors)
    assert found.differences == pytest.approx([np.log(1.1)] * 2)
    assert found.same_side == pytest.approx([0, 0])
    with pytest.raises(ValueError, match="no number"):
        rules.pairs(["base", "head", "head", "base"], [*vectors[:3], np.array([np.nan])])


def test_a_pool_without_cpu_times_is_judged_by_the_wall_clock_alone():
    class Silent:
        def step(self, *told):
            pass

    recorded = [{key: Timed(wall=t.wall, cpu=()) for key, t in process.items()} for process in synthetic(80)]
    found = selftest.all_rates(recorded, trials=2, progress=Silent())
    assert {rate.rule for rate in found} == {"wall", "wall, lower quartile", "wall, turn by turn"}
    with pytest.raises(Failure, match="holds no cpu times"):
        selftest.rate(recorded, "default", "full", 0, 2)


def test_a_pool_may_hold_fewer_amounts_of_extra_work(tmp_path):
    recorded = [{key: t for key, t in process.items() if key[1] in (0, 10)} for process in synthetic(4)]
    written(tmp_path, recorded)
    assert pool.extras_of(pool.load(tmp_path)) == (0, 10)
    with pytest.raises(Failure, match="holds other amounts of extra work"):
        pool.record(
            tmp_path, processes=8, seconds=0.01, threads=1, device="cpu", progress=lambda *told: None, extras=(0, 5)
        )


def test_exact_bounds():
    assert selftest.clopper_pearson(0, 300) == pytest.approx((0, 0.00994), abs=1e-4)
    assert selftest.clopper_pearson(300, 300) == pytest.approx((0.99006, 1), abs=1e-4)
    low, high = selftest.clopper_pearson(30, 300)
    assert low < 0.1 < high


def test_pyperfs_own_test_is_given_as_many_samples_of_either_side(monkeypatch):
    """It refuses unequal numbers, and a burst takes as many as fit in its time."""

    def is_significant(one, two):
        if len(one) != len(two):
            raise ValueError("different number of values")
        return True, 9.0

    fake = types.ModuleType("pyperf._utils")
    fake.is_significant = is_significant  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyperf", types.ModuleType("pyperf"))
    monkeypatch.setitem(sys.modules, "pyperf._utils", fake)
    [rule] = [rule for rule in peers.rules() if rule.name.startswith("pyperf")]
    assert rule.slower([1.0, 1.1, 1.0, 1.1], [2.0, 2.1])
    assert not rule.slower([2.0, 2.1, 2.0], [1.0, 1.1])


def test_peers_rules_see_a_slowdown_and_none_where_there_is_none():
    generator = random.Random(2)
    base = [1 + 0.01 * generator.random() for _ in range(60)]
    rules = peers.rules()
    assert len(rules) == 6
    for rule in rules:
        assert rule.source
        assert rule.slower(base, [1.3 * value for value in base]), rule.name
        assert not rule.slower(base, list(base)), rule.name
        assert not rule.slower(base, [0.7 * value for value in base]), rule.name


def test_the_report_is_written_from_the_rates():
    recorded = synthetic(88)
    rates = [
        selftest.rate(recorded, "default", "full", extra, 10, rule=rule)
        for rule in (rules.CHOSEN, rules.BEFORE)
        for extra in (0, 10)
    ]
    others = list(selftest.peer_rates(recorded, peers.rules()[:1]))
    caught = [mutants.Outcome(name="x", caught=False, what="")]
    text = account.text(rates, others, caught, processes=88, threads=1, beside=selftest.BURNING)
    assert "with a process that burns one core beside it" in text
    assert "thorough: 1.1" in text
    assert "**not caught**" in text
    assert "with 10 % of their work done twice" in text
    assert "| cpu or wall | default | 0.0 % | 100.0 % |" in text
    assert "| wall | default | 0.0 % | 100.0 % |" in text
    assert "Mutants" not in account.text(rates, others, [], processes=88, threads=1)


@pytest.mark.parametrize("outcome", list(mutants.in_inputs()), ids=lambda outcome: outcome.name)
def test_a_fault_in_the_gates_own_inputs_is_refused(outcome):
    assert outcome.caught, outcome.what


@pytest.mark.slow
def test_every_fault_planted_in_a_variant_is_caught(tmp_path):
    outcomes = list(mutants.in_variants(tmp_path, device="cpu"))
    assert [o.name for o in outcomes if not o.caught] == []
    assert len(outcomes) == len(mutants.FAULTS)

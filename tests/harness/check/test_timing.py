"""Tier 2 with made-up processes, and four real ones."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from harness.check import pairs as module
from harness.check import revisions
from harness.check.pairs import CANARY, Process, Record, Rounds, check_origin
from harness.check.revisions import Side
from harness.check.timing import judge
from harness.errors import Failure
from harness.store.record import Case

SIDE = Side(name="base", commit="", path=(), plugins=(), python=sys.executable, origin=())
ROUNDS = Rounds(base=SIDE, head=replace(SIDE, name="head"), device="cpu")
CASE = Case(
    attention="full", backend="reference", scope="core", phase="forward", b=1, h=1, n=64, d=16, m=None,
    dtype="float32", device="cpu",
)  # fmt: skip


@pytest.fixture
def made_up(monkeypatch):
    """Processes whose times are told: factors of head by round, the canary's, and who crashes."""
    told = {
        "factors": [1.0, 1.0],
        "canary": 1.0,
        "crash": "",
        "why": "error: SIGSEGV",
        "count": 9,
        "rounds": 0,
        "timed": [],
        "cpu": False,
        "cpu_factor": 1.0,
    }
    generator = np.random.default_rng(0)

    def measure(members, groups, how):
        assert [member.name for member in members] == ["base", "head", "head", "base"]
        assert all(member.side.name == member.name for member in members)
        return [one(member.name, member.slot, [key for group in groups for key in group]) for member in members]

    def one(name, slot, keys):
        told["rounds"] += slot == 0
        told["timed"].append(keys)
        samples, failures = {}, {}
        for key in keys:
            factor = told["canary"] if key == CANARY else told["factors"][told["rounds"] - 1] if key == "one" else 1.0
            if key == told["crash"] and name == "head" and slot == 5:
                failures[key] = told["why"]
            else:
                noise = np.exp(generator.normal(0, 0.005, told["count"]))
                samples[key] = [((factor if name == "head" else 1.0) * noise).tolist()]
        cpu = {key: times(key, name, turns) for key, turns in samples.items()} if told["cpu"] else {}
        return Process(side=name, slot=slot, samples=samples, cpu=cpu, failures=failures)

    def times(key, name, turns):
        factor = told["cpu_factor"] if key == "one" and name == "head" else 1.0
        wall = told["factors"][told["rounds"] - 1] if key == "one" and name == "head" else 1.0
        return [[value / wall * factor for value in turn] for turn in turns]

    monkeypatch.setattr(module, "measure", measure)
    return told


def run(pairs: int = 8) -> dict[str, str]:
    findings, _ = judge({"one": (CASE, CASE), "two": (CASE, CASE)}, ROUNDS, pairs=pairs, seed=0)
    assert all(finding.reason for finding in findings)
    return {finding.case: finding.verdict for finding in findings}


@pytest.mark.parametrize(
    ("told", "one", "two", "rounds"),
    [
        ({}, "ok", "ok", 1),
        ({"factors": [1.3, 1.3]}, "regressed", "ok", 2),
        ({"factors": [1.3, 1.0]}, "inconclusive", "ok", 2),
        ({"factors": [0.7, 0.7]}, "ok", "ok", 1),
        ({"factors": [0.05, 0.05]}, "implausible", "ok", 1),
        ({"factors": [1.3, 1.3], "canary": 1.2}, "void", "void", 1),
        ({"canary": 0.8}, "void", "void", 1),
        ({"crash": "one"}, "failed", "ok", 1),
        ({"crash": "one", "why": "timeout: no result after 120 s"}, "inconclusive", "ok", 1),
        ({"count": 4}, "failed", "failed", 1),
    ],
)
def test_verdicts(made_up, told, one, two, rounds):
    made_up.update(told)
    if told.get("count"):  # the canary is the first to be missed
        with pytest.raises(ValueError, match="has 4 samples"):
            run()
        return
    assert run() == {"one": one, "two": two}
    assert made_up["rounds"] == rounds


@pytest.mark.parametrize(
    ("factors", "cpu_factor", "verdict", "clock", "rounds"),
    [
        ([1.0, 1.0], 1.0, "ok", "cpu", 1),
        ([1.3, 1.3], 1.3, "regressed", "cpu", 2),
        ([1.0, 1.0], 1.3, "regressed", "cpu", 2),  # more work, which a neighbour's absence hid from the wall clock
        ([1.3, 1.3], 1.0, "regressed", "wall", 2),  # it sleeps, or waits for a file or another thread
        ([1.3, 1.0], 1.0, "ok", "cpu", 2),  # a neighbour's moment
        ([1.0, 1.0], 0.05, "implausible", "cpu", 1),
        ([0.05, 0.05], 1.0, "implausible", "wall", 1),
    ],
)
def test_cpu_time_decides_and_the_wall_clock_finds_what_waits(made_up, factors, cpu_factor, verdict, clock, rounds):
    made_up.update(cpu=True, factors=factors, cpu_factor=cpu_factor)
    findings, medians = judge({"one": (CASE, CASE), "two": (CASE, CASE)}, ROUNDS, pairs=8, seed=0)
    one = findings[0]
    assert (one.verdict, one.clock, made_up["rounds"]) == (verdict, clock, rounds)
    assert one.reason.startswith({"cpu": "CPU time of one thread: ", "wall": "wall clock: "}[clock])
    assert ("it waits or is preempted" in one.reason) == (clock == "wall")
    assert (findings[1].verdict, findings[1].clock) == ("ok", "cpu")
    assert one.head == pytest.approx(factors[0], rel=0.02)  # what users wait for
    assert len(medians["one"]) == 8


def test_instructions_are_told_where_they_are_counted():
    sides = ["base", "head", "head", "base"]
    counted = [
        Process(side=side, slot=slot, samples={}, instructions={"one": [[1000.0 if side == "base" else 1100.0]]})
        for slot, side in enumerate(sides)
    ]
    assert Record(tuple(counted)).instructions("one") == pytest.approx(1.1)
    assert Record((replace(counted[0], instructions={}), *counted[1:])).instructions("one") is None


def test_a_counter_counts_or_says_why_not():
    from harness.machine.instructions import Instructions, NoCounter

    try:
        counter = Instructions.open()
    except NoCounter as reason:
        pytest.skip(str(reason))
    before = counter.read()
    sum(range(100_000))
    assert counter.read() - before > 100_000
    counter.close()


def test_only_the_unsettled_are_measured_again_and_orders_are_shuffled_by_block(made_up):
    made_up["factors"] = [1.3, 1.3]
    run()
    assert all(set(keys) == {"one", CANARY} for keys in made_up["timed"][16:])
    orders = [tuple(keys) for keys in made_up["timed"][:16]]
    assert all(len(set(orders[start : start + 4])) == 1 for start in range(0, 16, 4))
    assert len(set(orders)) > 1


def test_a_canary_that_fails_ends_the_gate(made_up):
    made_up["crash"] = CANARY
    with pytest.raises(Failure, match="the canary fails"):
        run()


def test_a_worker_of_the_other_side_is_refused():
    with pytest.raises(Failure, match="swapped"):
        check_origin(replace(SIDE, origin=("/a",)), ["/b"])


@pytest.mark.slow
def test_real_processes_time_real_extra_work(tmp_path, monkeypatch):
    """One block of four processes; forty times the work is more than any neighbour's noise."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    source = (
        "from dataclasses import replace\nimport attentions\nfrom attentions.base import Backend\n"
        "full = attentions.spec('full').backend('reference').compute\n"
        "def slow(q, k, v):\n    return [full(q, k, v) for _ in range(40)][0]\n"
        "MADE = replace(attentions.spec('full'), name='made', model=None, backends=(Backend('reference', COMPUTE),))\n"
    )
    for name, compute in (("base", "full"), ("head", "slow")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "made.py").write_text(source.replace("COMPUTE", compute))
    with (
        revisions.here(plugins=[str(tmp_path / "base" / "made.py")]) as base,
        revisions.here(plugins=[str(tmp_path / "head" / "made.py")]) as head,
    ):
        rounds = Rounds(base=base, head=head, device="cpu", seconds=0.02)
        case = replace(CASE, attention="made", n=128)
        crash = replace(case, attention="absent")
        record = rounds.run({"made": (case, case), "absent": (crash, crash)}, pairs=2, seed=0)
    assert min(record.pairs("made").differences) > np.log(5)
    assert len(record.failures("absent", "base")) == 2
    assert [process.slot for process in record.processes] == [0, 1, 2, 3]
    assert len(record.processes[0].flat(CANARY)) >= 5
    assert record.clock("made") == "cpu"
    assert min(record.pairs("made", "cpu").differences) > np.log(
        20
    )  # the work is forty times as much, whoever is beside

"""What is disturbed is taken again, a bounded number of times, in a bounded time; time itself is made up here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.engines import watch as watching
from harness.engines.watch import Watch
from harness.machine.quiet import Moment
from harness.machine.shown import Shown


class Machine:
    """A machine with a clock of its own; `noisy(now)` says whether a neighbour has a core at a time."""

    def __init__(self, noisy: Callable[[float], bool]) -> None:
        self.now, self.noisy, self.others, self.own = 0.0, noisy, 0.0, 0.0
        self.calls: list[float] = []

    def pass_time(self, seconds: float, *, computing: bool = False) -> None:
        for _ in range(round(seconds / 0.01)):
            self.others += 0.01 if self.noisy(self.now) else 0.0
            self.own += 0.01 if computing else 0.0
            self.now += 0.01

    def canary(self) -> float:
        slow = self.noisy(self.now)
        self.pass_time(0.05 if slow else 0.01, computing=True)
        return 40.0 if slow else 4.0

    def moment(self) -> Moment:
        return Moment(seconds=self.now, cores=2, busy_s=self.others + self.own, steal_s=0.0, own_s=self.own)

    def measure(self) -> float:
        """How long a second's work took: its result tells one try from another."""
        slow = self.noisy(self.now)
        self.pass_time(2.0 if slow else 1.0, computing=True)
        self.calls.append(self.now)
        return self.now


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Machine, Watch]]:
    def make(noisy: Callable[[float], bool], *, patience: float = 20.0) -> tuple[Machine, Watch]:
        machine = Machine(noisy)
        clock: Any = type("Clock", (), {"monotonic": lambda: machine.now, "sleep": machine.pass_time})
        monkeypatch.setattr(watching, "time", clock)
        shown = Shown()
        shown.tell(4.0)
        return machine, Watch(machine, shown, threads=2, cuda=False, patience_s=patience)

    return make


def test_a_quiet_case_is_taken_once(watched: Any) -> None:
    machine, watch = watched(lambda now: False)
    taken = watch.quietly(machine.measure, well=lambda result: True)
    assert (taken.tries, taken.verdict.disturbed, len(machine.calls)) == (1, False, 1)
    assert len(watch.looks) == 2
    watch.quietly(machine.measure, well=lambda result: True)
    assert len(watch.looks) == 3  # the look after the first stands for the machine before the second
    machine.pass_time(watching.FRESH_S + 0.1)
    watch.quietly(machine.measure, well=lambda result: True)
    assert len(watch.looks) == 5


def test_a_disturbed_case_is_taken_again_once_it_is_quiet(watched: Any) -> None:
    machine, watch = watched(lambda now: now < 5)
    taken = watch.quietly(machine.measure, well=lambda result: True)
    assert (taken.tries, taken.verdict.disturbed) == (2, False)
    assert taken.result == machine.calls[-1] > 5
    assert 2.5 < watch.seconds["waiting"] < 4  # until it was quiet and no longer
    assert 16 < watch.left_s < 20 - watch.seconds["waiting"]  # its looks count as well
    assert watch.seconds["again"] == pytest.approx(2.0)  # the try that was not kept


def test_a_case_that_stays_disturbed_is_told_so_after_three_more_tries(watched: Any) -> None:
    machine, watch = watched(lambda now: True)
    taken = watch.quietly(machine.measure, well=lambda result: True)
    assert (taken.tries, len(machine.calls)) == (4, 4)
    assert taken.verdict.reason.startswith("the canary took 10× its best (40 ms against 4)")
    assert 14 < watch.seconds["waiting"] < 21
    while watch.left_s > watching.SPENT_S:
        watch.quietly(machine.measure, well=lambda result: True)
    waited, before = watch.seconds["waiting"], len(machine.calls)
    taken = watch.quietly(machine.measure, well=lambda result: True)
    assert (taken.tries, len(machine.calls) - before) == (2, 2)  # at once, once
    assert watch.seconds["waiting"] == waited <= 20.5


def test_a_short_case_is_not_worth_a_long_wait(watched: Any) -> None:
    machine, watch = watched(lambda now: True)

    def short() -> float:
        machine.pass_time(0.02, computing=True)
        return machine.now

    assert watch.quietly(short, well=lambda result: True).tries == 4
    assert watch.seconds["waiting"] + watch.seconds["canary"] < 3 * (watching.WORTH * 0.2 + 1)


def test_without_patience_nothing_is_taken_again(watched: Any) -> None:
    machine, watch = watched(lambda now: True, patience=0.0)
    taken = watch.quietly(machine.measure, well=lambda result: True)
    assert (taken.tries, taken.verdict.disturbed, len(machine.calls)) == (1, True, 1)
    assert watch.seconds["waiting"] == 0


def test_the_least_disturbed_try_is_kept(watched: Any) -> None:
    """All four tries are disturbed, the third least."""
    machine, watch = watched(lambda now: False)
    looks = iter([40.0, 40.0, 4.0, 30.0, 4.0, 5.0, 4.0, 9.0])  # before and after the first, then a wait's and a try's
    machine.canary = lambda: next(looks)
    taken = watch.quietly(machine.measure, well=lambda result: True)
    assert taken.tries == 4
    assert watch.seconds["again"] == pytest.approx(3.0)
    assert taken.verdict.factor == pytest.approx(5 / 4)
    assert taken.result == machine.calls[2]


def test_a_failure_is_not_tried_again_and_not_judged(watched: Any) -> None:
    machine, watch = watched(lambda now: True)
    taken = watch.quietly(machine.measure, well=lambda result: False)
    assert (taken.tries, taken.verdict, len(watch.looks)) == (1, None, 1)


def test_a_second_try_that_fails_leaves_the_first(watched: Any) -> None:
    machine, watch = watched(lambda now: True)
    results = iter([True, False])
    taken = watch.quietly(lambda: (machine.measure(), next(results))[1], well=lambda result: result)
    assert (taken.result, taken.tries, taken.verdict.disturbed) == (True, 2, True)

"""Tier 2's measuring: blocks of four fresh processes, base head head base, that time every case in turns.

rounds = Rounds(base, head, device="cpu", seconds=0.35)
record = rounds.run(cases, pairs=12, seed=0)
pairs = record.pairs(case_id)               # what decide() takes

A process is started anew (not forked: a fork shares its parent's memory layout) and warms each case up before timing
it. The four of a block live at the same time and compute one at a time, in turns of some 40 ms: a shared machine is
slower for a second and quicker the next, and turns give all four the same of it. The canary, a fixed matrix product
that takes no part in what is compared, is timed like a case.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.check.decide import Clock, Pairs, pair_up, slots
from harness.check.revisions import Side
from harness.engines.local import START_TIMEOUT_S, Engine, WorkerLost
from harness.errors import Failure, UsageError
from harness.measuring.requests import CaseFailure, Hold, Load, Release, Samples, Turn
from harness.store.record import Case

CANARY = "canary"
SECONDS, FEWEST_SAMPLES = 0.35, 5
THREADS = 1
PROCESSES_ALONE = 8
BLOCK = 4
TURNS = 8


@dataclass(frozen=True)
class Member:
    """One process to be of a block: its side, that side's name and place, and each case's form there."""

    side: Side
    name: str
    slot: int
    forms: Mapping[str, Case | None]


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process: its side, its place, and for each case the samples of each turn in ms, or why there are none.

    samples: by the wall clock; cpu: by the process' own CPU time, empty where that is not the time that a case takes:
    on a GPU, and with threads that wait for each other; instructions: where the kernel counts them.
    """

    side: str
    slot: int
    samples: Mapping[str, Sequence[Sequence[float]]]
    cpu: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    instructions: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)

    def by(self, clock: Clock) -> Mapping[str, Sequence[Sequence[float]]]:
        """The turns by one clock."""
        return self.samples if clock == "wall" else self.cpu

    def flat(self, case: str, clock: Clock = "wall") -> list[float]:
        """A case's samples by one clock, whatever their turn."""
        return [value for turn in self.by(clock).get(case, ()) for value in turn]


@dataclass(frozen=True)
class Record:
    """The processes of one round, in the order they ran."""

    processes: tuple[Process, ...]

    def pairs(self, case: str, clock: Clock = "wall") -> Pairs:
        """The case's log-ratios. Raises ValueError when a process has too few samples, or one that is no number."""
        return pair_up([p.side for p in self.processes], [self._median(p, case, clock) for p in self.processes])

    def clock(self, case: str) -> Clock:
        """What decides: CPU time where every process has it."""
        return "cpu" if all(case in process.cpu for process in self.processes) else "wall"

    def failures(self, case: str, side: str) -> list[str]:
        """Why processes of one side could not time the case."""
        return [p.failures[case] for p in self.processes if p.side == side and case in p.failures]

    def milliseconds(self, case: str, side: str) -> float:
        """What users wait for: the median over one side's processes of their medians by the wall clock."""
        return statistics.median(self._median(p, case, "wall") for p in self.processes if p.side == side)

    def instructions(self, case: str) -> float | None:
        """Head's instructions a call over base's, None where the kernel does not count them."""
        sides: dict[str, list[float]] = {"base": [], "head": []}
        for process in self.processes:
            counted = [value for turn in process.instructions.get(case, ()) for value in turn]
            if not counted or min(counted) <= 0:
                return None
            sides[process.side].append(statistics.median(counted))
        return statistics.median(sides["head"]) / statistics.median(sides["base"])

    @staticmethod
    def _median(process: Process, case: str, clock: Clock) -> float:
        samples = process.flat(case, clock)
        if len(samples) < FEWEST_SAMPLES:
            raise ValueError(
                f"process {process.slot} ({process.side}) has {len(samples)} samples; it takes {FEWEST_SAMPLES} or more"
            )
        if not all(math.isfinite(value) and value > 0 for value in samples):
            raise ValueError(f"process {process.slot} ({process.side}) has a sample that is not a positive number")
        return statistics.median(samples)


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """How rounds are run: the two sides, the device, seconds of samples a case, and who is told of each process.

    threads: of each process. One by default: threads that wait for each other at every step make a neighbour's time
    slice theirs, and a call of 2 ms takes 50.
    """

    base: Side
    head: Side
    device: str
    seconds: float = SECONDS
    threads: int = THREADS
    timeout: float = 120.0
    progress: Callable[[int, int], None] = lambda done, total: None

    def run(self, cases: Mapping[str, tuple[Case, Case]], *, pairs: int, seed: int) -> Record:
        """Time every case (key → its base and head form) and the canary in 2 · `pairs` processes."""
        order = slots(pairs)
        processes: list[Process] = []
        for start in range(0, len(order), BLOCK):
            keys = [*cases, CANARY]
            random.Random(f"{seed}/{start // BLOCK}").shuffle(keys)
            members = [
                Member(self._side(name), name, start + place, {key: self._form(cases, key, name) for key in keys})
                for place, name in enumerate(order[start : start + BLOCK])
            ]
            processes += measure(members, [[key] for key in keys], self)
            self.progress(len(processes), len(order))
        return Record(tuple(processes))

    def _side(self, name: str) -> Side:
        return self.base if name == "base" else self.head

    @staticmethod
    def _form(cases: Mapping[str, tuple[Case, Case]], key: str, name: str) -> Case | None:
        return None if key == CANARY else cases[key][0 if name == "base" else 1]

    def alone(self, cases: Mapping[str, Case]) -> dict[str, list[float]]:
        """Medians in ms of a few processes of head by itself, for a stored timing. Raises Failure where one fails."""
        medians: dict[str, list[float]] = {name: [] for name in cases}
        for slot in range(PROCESSES_ALONE):
            member = Member(self.head, "head", slot, dict(cases))
            [process] = measure([member], [[name] for name in cases], self)
            for name, why in process.failures.items():
                raise Failure(f"{name} fails when timed: {why}")
            for name in cases:
                medians[name].append(statistics.median(process.flat(name)))
            self.progress(slot + 1, PROCESSES_ALONE)
        return medians


def measure(members: Sequence[Member], groups: Sequence[Sequence[str]], how: Rounds) -> list[Process]:
    """Fresh processes that live side by side and time the cases of each group in turns; one computes at a time.

    A turn is a tenth of a second or less, and every other round of turns goes backwards: what the machine does to one
    process it does to all. After a crash a new process goes on with the groups that are left.
    """
    seats = [_Seat(member, how) for member in members]
    try:
        engines = [make_engine(seat.member.side, how.device) for seat in seats]
        for seat, engine in zip(seats, engines, strict=True):
            seat.engine = engine
            engine.begin()  # all import at once
        for seat, engine in zip(seats, engines, strict=True):
            load(engine, seat.member.side, threads=how.threads)
        for group in groups:
            turns = [(seat, key) for seat in seats for key in group]
            for seat, key in turns:
                seat.ask(Hold(key=key, device=how.device, case=seat.member.forms[key]))
            for number in range(TURNS):
                for seat, key in turns if number % 2 == 0 else reversed(turns):
                    seat.take(key, seconds=how.seconds / TURNS)
            for seat in seats:
                seat.release()
        return [seat.process() for seat in seats]
    finally:
        for seat in seats:
            if seat.engine is not None:
                seat.engine.stop()


class _Seat:
    """One process of a block, the samples it took and what failed in it."""

    def __init__(self, member: Member, how: Rounds) -> None:
        self.member, self.how = member, how
        self.engine: Engine | None = None
        self.turns: dict[str, list[Samples]] = {}
        self.failures: dict[str, str] = {}

    def take(self, key: str, *, seconds: float) -> None:
        """One turn of a case."""
        turn = self.ask(Turn(key=key, seconds=seconds))
        if turn:
            self.turns.setdefault(key, []).append(turn)

    def ask(self, request: Hold | Turn) -> Samples | None:
        """The samples of a turn; None where the case has failed before or fails now."""
        if request.key in self.failures:
            return None
        how = self.how
        if self.engine is None:
            self.engine = open_engine(self.member.side, how.device, threads=how.threads)
        try:
            answer = self.engine.ask(request, how.timeout + how.seconds)
        except (WorkerLost, Failure) as error:
            self.failures[request.key] = f"{getattr(error, 'status', 'error')}: {error}"
            self.engine.stop(kill=True)
            self.engine = None
            return None
        if isinstance(answer, CaseFailure):
            self.failures[request.key] = f"{answer.status}: {answer.note}"
            return None
        return answer

    def release(self) -> None:
        """Let go of the group's cases."""
        if self.engine is not None:
            try:
                self.engine.ask(Release(), self.how.timeout)
            except (WorkerLost, Failure):  # what follows is timed in a new one
                self.engine.stop(kill=True)
                self.engine = None

    def process(self) -> Process:
        """What came out; a case that failed has no samples."""
        kept = {key: turns for key, turns in self.turns.items() if key not in self.failures}
        wall = {key: [turn.milliseconds for turn in turns] for key, turns in kept.items()}
        cpu = {key: [turn.cpu for turn in turns if turn.cpu] for key, turns in kept.items()}
        instructions = {key: [turn.instructions for turn in turns if turn.instructions] for key, turns in kept.items()}

        def whole(found: Mapping[str, list[list[float]]]) -> dict[str, list[list[float]]]:
            """What every turn of a process on one thread has."""
            one = self.how.threads == 1
            return {key: turns for key, turns in found.items() if one and len(turns) == len(wall[key])}

        return Process(
            side=self.member.name, slot=self.member.slot, samples=wall, cpu=whole(cpu),
            instructions=whole(instructions), failures=self.failures,
        )  # fmt: skip


def open_engine(side: Side, device: str, *, threads: int | None = None) -> Engine:
    """A fresh worker of one side with its plugins loaded. Raises Failure when it would measure other code than that."""
    engine = make_engine(side, device)
    load(engine, side, threads=threads)
    return engine


def make_engine(side: Side, device: str) -> Engine:
    """A worker of one side that has not started yet."""
    return Engine(plugins=side.plugins, device=device, python=side.python, path=side.path)


def load(engine: Engine, side: Side, *, threads: int | None) -> None:
    """Load the side's plugins, and make sure that it is that side's code; end the worker and raise Failure if not."""
    try:
        answer = engine.ask(Load(plugins=tuple(side.plugins), threads=threads), START_TIMEOUT_S)
        check_origin(side, answer.origin)
    except (WorkerLost, UsageError) as error:
        engine.stop(kill=True)
        raise Failure(f"the worker of {side.name} does not start: {error}") from None
    except BaseException:
        engine.stop(kill=True)
        raise


def check_origin(side: Side, origin: Sequence[str]) -> None:
    """Refuse a worker that loaded another side's code."""
    if tuple(origin) != side.origin:
        raise Failure(
            f"the worker of {side.name} measures {', '.join(origin)} instead of {', '.join(side.origin)}: "
            "the sides are swapped or the import path is shadowed"
        )

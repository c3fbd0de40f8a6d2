"""Tier 2's measuring: fresh processes in blocks of base head head base, each timing every case once, in shuffled order.

rounds = Rounds(base, head, device="cpu", seconds=0.35)
record = rounds.run(cases, pairs=12, seed=0)
pairs = record.pairs(case_id)               # what decide() takes

A process is started anew (not forked: a fork shares its parent's memory layout) and warms each case up before timing
it. The four processes of a block share one order, so that a case and its partner have run after the same neighbours.
The canary, a fixed matrix product that takes no part in what is compared, is timed in every process like a case.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from harness.check.decide import Pairs, pair_up, slots
from harness.check.revisions import Side
from harness.engines.local import START_TIMEOUT_S, Engine, WorkerLost
from harness.errors import Failure, UsageError
from harness.record import Case

CANARY = "canary"
SECONDS, FEWEST_SAMPLES = 0.35, 5
THREADS = 1
PROCESSES_ALONE = 8


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process: its side, its place, and for each case the samples in ms, or why there are none."""

    side: str
    slot: int
    samples: Mapping[str, Sequence[float]]
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """The processes of one round, in the order they ran."""

    processes: tuple[Process, ...]

    def pairs(self, case: str) -> Pairs:
        """The case's log-ratios. Raises ValueError when a process has too few samples, or one that is no number."""
        return pair_up([p.side for p in self.processes], [self._median(p, case) for p in self.processes])

    def failures(self, case: str, side: str) -> list[str]:
        """Why processes of one side could not time the case."""
        return [p.failures[case] for p in self.processes if p.side == side and case in p.failures]

    def milliseconds(self, case: str, side: str) -> float:
        """The median over one side's processes of their medians."""
        return statistics.median(self._median(p, case) for p in self.processes if p.side == side)

    @staticmethod
    def _median(process: Process, case: str) -> float:
        samples = process.samples.get(case, ())
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
        processes = []
        for slot, name in enumerate(order):
            side, place = (self.base, 0) if name == "base" else (self.head, 1)
            keys = [*cases, CANARY]
            random.Random(f"{seed}/{slot // 4}").shuffle(keys)
            forms = {key: None if key == CANARY else cases[key][place] for key in keys}
            processes.append(measure(side, name, slot, forms, self))
            self.progress(slot + 1, len(order))
        return Record(tuple(processes))

    def alone(self, cases: Mapping[str, Case]) -> dict[str, list[float]]:
        """Medians in ms of a few processes of head by itself, for a stored timing. Raises Failure where one fails."""
        medians: dict[str, list[float]] = {name: [] for name in cases}
        for slot in range(PROCESSES_ALONE):
            process = measure(self.head, "head", slot, cases, self)
            for name, why in process.failures.items():
                raise Failure(f"{name} fails when timed: {why}")
            for name in cases:
                medians[name].append(statistics.median(process.samples[name]))
            self.progress(slot + 1, PROCESSES_ALONE)
        return medians


def measure(side: Side, name: str, slot: int, forms: Mapping[str, Case | None], how: Rounds) -> Process:
    """One fresh process over the cases in their order. After a crash a new one goes on with those that are left."""
    samples: dict[str, list[float]] = {}
    failures: dict[str, str] = {}
    engine = open_engine(side, how.device, threads=how.threads)
    try:
        for key, case in forms.items():
            if engine is None:
                engine = open_engine(side, how.device, threads=how.threads)
            request = {"case": asdict(case) if case else None, "seconds": how.seconds, "fewest": FEWEST_SAMPLES}
            try:
                answer = engine.ask("burst", how.timeout + how.seconds, device=how.device, **request)
            except (WorkerLost, Failure) as error:
                failures[key] = f"{getattr(error, 'status', 'error')}: {error}"
                engine.stop(kill=True)
                engine = None
                continue
            if "failure" in answer:
                failures[key] = f"{answer['failure']['status']}: {answer['failure']['note']}"
            else:
                samples[key] = answer["value"]
    finally:
        if engine is not None:
            engine.stop()
    return Process(side=name, slot=slot, samples=samples, failures=failures)


def open_engine(side: Side, device: str, *, threads: int | None = None) -> Engine:
    """A fresh worker of one side with its plugins loaded. Raises Failure when it would measure other code than that."""
    engine = Engine(plugins=side.plugins, device=device, python=side.python, path=side.path)
    try:
        answer = engine.ask("load", START_TIMEOUT_S, plugins=list(side.plugins), threads=threads)
        check_origin(side, answer["origin"])
    except (WorkerLost, UsageError) as error:
        engine.stop(kill=True)
        raise Failure(f"the worker of {side.name} does not start: {error}") from None
    except BaseException:
        engine.stop(kill=True)
        raise
    return engine


def check_origin(side: Side, origin: Sequence[str]) -> None:
    """Refuse a worker that loaded another side's code."""
    if tuple(origin) != side.origin:
        raise Failure(
            f"the worker of {side.name} measures {', '.join(origin)} instead of {', '.join(side.origin)}: "
            "the sides are swapped or the import path is shadowed"
        )

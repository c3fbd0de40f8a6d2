"""harness check --self-test: how often the gate cries wolf and how often it sleeps, on this machine.

rates.csv      a line a rule, setting, specimen and extra work: verdicts of whole decisions, with exact bounds
peers.csv      other tools' rules on the very same samples
README.md      both as tables, and what the figures do not show
"""

from __future__ import annotations

import csv
import math
import os
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from harness.check import account, mutants, peers, pool, rules
from harness.check.decide import PAIRS, PAIRS_THOROUGH, Clock, Decision, Pairs, decide, settle, slots
from harness.check.pairs import BLOCK
from harness.check.timing import combined, unsettled
from harness.errors import FAILURE, OK, UsageError
from harness.machine import parent

SETTINGS: Mapping[str, int] = {"default": PAIRS, "thorough": PAIRS_THOROUGH}
BURNING = "a process that burns one core"


@dataclass(frozen=True, kw_only=True)
class Rate:
    """One line of rates.csv. extra_percent 0 is unchanged code. Bounds are one-sided 95 %, Clopper-Pearson."""

    rule: str
    setting: str
    specimen: str
    extra_percent: int
    realised_percent: float
    trials: int
    regressed: int
    inconclusive: int
    not_gateable: int
    ok: int
    regressed_rate: float
    regressed_at_least: float
    regressed_at_most: float
    second_rounds: int


@dataclass(frozen=True, kw_only=True)
class PeerRate:
    """One line of peers.csv: how often a rule reports a slowdown, over all neighbouring processes."""

    rule: str
    source: str
    specimen: str
    extra_percent: int
    comparisons: int
    slower: int
    slower_rate: float


def run(
    folder: Path, *, progress: Any, processes: int, seconds: float, threads: int, trials: int, busy: bool, device: str,
    extras: Sequence[int] = pool.EXTRAS, plant: bool = True, beside: str = "",
) -> int:  # fmt: skip
    """Record, decide, compare with peers, try the mutants, write the folder. 5 when a mutant got through.

    extras: the amounts of extra work to record; plant: whether to try the mutants, which take no quiet machine;
    beside: what else the machine does, where this does not start it.
    """
    needed = 2 * BLOCK * (PAIRS_THOROUGH // 2)
    if processes < needed:
        raise UsageError(f"--pool takes at least {needed} processes: a thorough decision may use that many")
    if trials < 1:
        raise UsageError(f"--trials takes a number of at least 1, not {trials}")
    if processes % BLOCK:
        raise UsageError(f"--pool takes a multiple of {BLOCK}, not {processes}: processes take turns in blocks")
    peer_rules = peers.rules()
    with pool.neighbour(busy=busy):
        pool.record(
            folder,
            processes=processes,
            seconds=seconds,
            threads=threads,
            device=device,
            progress=progress.step,
            extras=extras,
        )
    recorded = pool.load(folder)[:processes]
    rates = all_rates(recorded, trials=trials, progress=progress)
    others = list(peer_rates(recorded, peer_rules))
    if plant:
        progress.say("trying the mutants")
    caught = mutants.run(folder, device=device) if plant else []
    _csv(folder / "rates.csv", Rate, rates)
    _csv(folder / "peers.csv", PeerRate, others)
    (folder / "README.md").write_text(
        account.text(
            rates, others, caught, processes=len(recorded), threads=threads, beside=BURNING if busy else beside
        ), encoding="utf-8"
    )  # fmt: skip
    print((folder / "README.md").read_text(encoding="utf-8"), end="")
    return OK if all(outcome.caught for outcome in caught) else FAILURE


def all_rates(recorded: pool.Pool, *, trials: int, progress: Any) -> list[Rate]:
    """The rates of every rule on one pool, the chosen rule first, in as many processes as there are cores."""
    known = [rule for rule, parts in rules.RULES.items() if all(_held(recorded, part.clock) for part in parts)]
    jobs = [
        (rule, s, name, extra)
        for rule in known for s in SETTINGS for name in pool.SPECIMENS for extra in pool.extras_of(recorded)
    ]  # fmt: skip
    rates = []
    with ProcessPoolExecutor(
        max_workers=len(os.sched_getaffinity(0)), initializer=_share, initargs=(recorded,)
    ) as workers:  # fmt: skip
        waiting = [workers.submit(_shared_rate, *job, trials) for job in jobs]
        for place, job in enumerate(waiting):
            rates.append(job.result())
            progress.step(place + 1, len(jobs), "whole decisions on the pool")
    return rates


_SHARED: list[pool.Pool] = []


def _share(recorded: pool.Pool) -> None:
    """In a worker, which ends with its parent: keep the pool, which is too large to be sent with every job."""
    parent.die_with()
    _SHARED[:] = [recorded]


def _shared_rate(rule: str, setting: str, name: str, extra: int, trials: int) -> Rate:
    return rate(_SHARED[0], setting, name, extra, trials, rule=rule)


def _held(recorded: pool.Pool, clock: Clock) -> bool:
    return clock == "wall" or all(timed.cpu for process in recorded for timed in process.values())


def rate(
    recorded: pool.Pool, setting: str, name: str, extra: int, trials: int, *, rule: str = rules.CHOSEN
) -> Rate:  # fmt: skip
    """The verdicts of `trials` whole decisions by one rule on blocks drawn from the pool."""
    generator = random.Random(f"{setting}/{name}/{extra}")
    parts = rules.RULES[rule]
    figures = [[{key: part.of(process[name, key]) for key in {0, extra}} for process in recorded] for part in parts]
    verdicts: Counter[str] = Counter()
    seconds = 0
    for number in range(trials):
        drawn = draw(figures, extra, SETTINGS[setting], generator)
        told: dict[Clock, Decision] = {}
        for part, (fresh, _) in zip(parts, drawn, strict=True):
            told[part.clock] = decide(fresh, seed=number)
        if unsettled(told):
            seconds += 1
            for part, both in zip(parts, drawn, strict=True):
                told[part.clock] = settle(*both, seed=number)
        verdicts[_verdict(combined(told)[1])] += 1
    low, high = clopper_pearson(verdicts["regressed"], trials)
    ratios = [float(np.median(process[extra] - process[0])) for process in figures[0]]
    return Rate(
        rule=rule, setting=setting, specimen=name, extra_percent=extra, trials=trials,
        realised_percent=100 * math.expm1(statistics.median(ratios)), regressed=verdicts["regressed"],
        inconclusive=verdicts["inconclusive"], not_gateable=verdicts["not gateable"], ok=verdicts["ok"],
        regressed_rate=verdicts["regressed"] / trials, regressed_at_least=low, regressed_at_most=high,
        second_rounds=seconds,
    )  # fmt: skip


Figures = Sequence[Mapping[int, np.ndarray]]  # a process: extra work → its figures by one part of a rule


def draw(
    figures: Sequence[Figures], extra: int, pairs: int, generator: random.Random
) -> list[tuple[Pairs, Pairs]]:  # fmt: skip
    """For each part of a rule two sets of pairs from blocks of the pool, none in both; who is base and who is head in a
    block is drawn, too, and the same for every part."""
    chosen = generator.sample(range(0, len(figures[0]), BLOCK), pairs)
    orders = [generator.sample(range(start, start + BLOCK), BLOCK) for start in chosen]
    half = pairs // 2
    return [(_pairs(part, extra, orders[:half]), _pairs(part, extra, orders[half:])) for part in figures]


def _pairs(figures: Figures, extra: int, orders: Sequence[Sequence[int]]) -> Pairs:
    """base head head base in each block."""
    sides = slots(2 * len(orders))
    places = [place for order in orders for place in order]
    return rules.pairs(
        sides, [figures[place][0 if side == "base" else extra] for place, side in zip(places, sides, strict=True)]
    )


def peer_rates(recorded: pool.Pool, rules: Iterable[peers.Rule]) -> Iterable[PeerRate]:
    """Every rule on every process against the one in its place in the next block: a run against the run after it."""
    for rule in rules:
        for name in pool.SPECIMENS:
            for extra in pool.extras_of(recorded):
                told = [
                    rule.slower(_flat(before[name, 0]), _flat(after[name, extra]))
                    for before, after in zip(recorded, recorded[BLOCK:], strict=False)
                ]
                yield PeerRate(
                    rule=rule.name, source=rule.source, specimen=name, extra_percent=extra, comparisons=len(told),
                    slower=sum(told), slower_rate=sum(told) / len(told),
                )  # fmt: skip


def _flat(timed: rules.Timed) -> list[float]:
    """The wall times of a process, which is what other tools read."""
    return [value for turn in timed.wall for value in turn]


def clopper_pearson(count: int, trials: int) -> tuple[float, float]:
    """One-sided 95 % lower and upper bounds of a probability after `count` of `trials`."""
    from scipy import stats

    low = float(stats.beta.ppf(0.05, count, trials - count + 1)) if count else 0.0
    high = float(stats.beta.ppf(0.95, count + 1, trials - count)) if count < trials else 1.0
    return low, high


def _verdict(decision: Decision) -> str:
    return "ok" if decision.verdict == "implausible" else decision.verdict


def _csv(path: Path, kind: Callable[..., Any], rows: Sequence[Any]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(kind)], lineterminator="\n")  # type: ignore[arg-type]
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)

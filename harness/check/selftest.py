"""harness check --self-test: how often the gate cries wolf and how often it sleeps, on this machine.

rates.csv      a line a setting, specimen and extra work: verdicts of whole decisions, with exact bounds
peers.csv      other tools' rules on the very same samples
README.md      both as tables, and what the figures do not show
"""

from __future__ import annotations

import csv
import os
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from harness.check import mutants, peers, pool
from harness.check.decide import (
    PAIRS,
    PAIRS_THOROUGH,
    UNSETTLED,
    Decision,
    Pairs,
    decide,
    pair_up,
    settle,
    slots,
)
from harness.check.pairs import BLOCK
from harness.errors import FAILURE, OK, UsageError

SETTINGS: Mapping[str, int] = {"default": PAIRS, "thorough": PAIRS_THOROUGH}
TRIALS = 300


@dataclass(frozen=True, kw_only=True)
class Rate:
    """One line of rates.csv. extra_percent 0 is unchanged code. Bounds are one-sided 95 %, Clopper-Pearson."""

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
    folder: Path, *, progress: Any, processes: int, seconds: float, threads: int, trials: int, busy: bool, device: str
) -> int:
    """Record, decide, compare with peers, try the mutants, write the folder. 5 when a mutant got through."""
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
            folder, processes=processes, seconds=seconds, threads=threads, device=device, progress=progress.step
        )
    recorded = pool.load(folder)[:processes]
    medians = [{key: statistics.median(values) for key, values in process.items()} for process in recorded]
    jobs = [(s, name, extra) for s in SETTINGS for name in pool.SPECIMENS for extra in pool.EXTRAS]
    rates = []
    with ProcessPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as workers:
        waiting = [workers.submit(rate, medians, *job, trials) for job in jobs]
        for place, job in enumerate(waiting):
            rates.append(job.result())
            progress.step(place + 1, len(jobs), "whole decisions on the pool")
    others = list(peer_rates(recorded, peer_rules))
    progress.say("trying the mutants")
    caught = mutants.run(folder, device=device)
    _csv(folder / "rates.csv", Rate, rates)
    _csv(folder / "peers.csv", PeerRate, others)
    (folder / "README.md").write_text(
        text(rates, others, caught, processes=len(recorded), threads=threads, busy=busy), encoding="utf-8"
    )  # fmt: skip
    print((folder / "README.md").read_text(encoding="utf-8"), end="")
    return OK if all(outcome.caught for outcome in caught) else FAILURE


def rate(medians: Sequence[Mapping[pool.Key, float]], setting: str, name: str, extra: int, trials: int) -> Rate:
    """The verdicts of `trials` whole decisions on blocks drawn from the pool."""
    generator = random.Random(f"{setting}/{name}/{extra}")
    verdicts: Counter[str] = Counter()
    seconds = 0
    for number in range(trials):
        first, second = draw(medians, name, extra, SETTINGS[setting], generator)
        decision = decide(first, seed=number)
        if decision.verdict in UNSETTLED:
            decision, seconds = settle(first, second, seed=number), seconds + 1
        verdicts[_verdict(decision)] += 1
    low, high = clopper_pearson(verdicts["regressed"], trials)
    ratios = [process[name, extra] / process[name, 0] for process in medians]
    return Rate(
        setting=setting, specimen=name, extra_percent=extra, realised_percent=100 * (statistics.median(ratios) - 1),
        trials=trials, regressed=verdicts["regressed"], inconclusive=verdicts["inconclusive"],
        not_gateable=verdicts["not gateable"], ok=verdicts["ok"], regressed_rate=verdicts["regressed"] / trials,
        regressed_at_least=low, regressed_at_most=high, second_rounds=seconds,
    )  # fmt: skip


def draw(
    medians: Sequence[Mapping[pool.Key, float]], name: str, extra: int, pairs: int, generator: random.Random
) -> tuple[Pairs, Pairs]:
    """Two sets of pairs from blocks of the pool, none in both; who is base and who is head in a block is drawn, too."""
    chosen = generator.sample(range(0, len(medians), BLOCK), pairs)
    half = pairs // 2
    return tuple(_pairs(medians, name, extra, part, generator) for part in (chosen[:half], chosen[half:]))  # type: ignore[return-value]


def _pairs(
    medians: Sequence[Mapping[pool.Key, float]], name: str, extra: int, starts: Sequence[int], generator: random.Random
) -> Pairs:
    """base head head base in each block."""
    figures: list[float] = []
    for start in starts:
        order = generator.sample(range(start, start + BLOCK), BLOCK)
        figures += [
            medians[place][name, 0 if side == "base" else extra] for place, side in zip(order, slots(2), strict=True)
        ]
    return pair_up(slots(2 * len(starts)), figures)


def peer_rates(recorded: pool.Pool, rules: Iterable[peers.Rule]) -> Iterable[PeerRate]:
    """Every rule on every process against the one in its place in the next block: a run against the run after it."""
    for rule in rules:
        for name in pool.SPECIMENS:
            for extra in pool.EXTRAS:
                told = [
                    rule.slower(before[name, 0], after[name, extra])
                    for before, after in zip(recorded, recorded[BLOCK:], strict=False)
                ]
                yield PeerRate(
                    rule=rule.name, source=rule.source, specimen=name, extra_percent=extra, comparisons=len(told),
                    slower=sum(told), slower_rate=sum(told) / len(told),
                )  # fmt: skip


def clopper_pearson(count: int, trials: int) -> tuple[float, float]:
    """One-sided 95 % lower and upper bounds of a probability after `count` of `trials`."""
    from scipy import stats

    low = float(stats.beta.ppf(0.05, count, trials - count + 1)) if count else 0.0
    high = float(stats.beta.ppf(0.95, count + 1, trials - count)) if count < trials else 1.0
    return low, high


def text(
    rates: Sequence[Rate],
    others: Sequence[PeerRate],
    caught: Sequence[mutants.Outcome],
    *,
    processes: int,
    threads: int,
    busy: bool,
) -> str:
    """The folder's README."""
    per = {setting: 2 * BLOCK * (pairs // 2) for setting, pairs in SETTINGS.items()}
    independent = "; ".join(f"{setting}: {processes / count:.1f}" for setting, count in per.items())
    machine = "with a process beside it that burns one core" if busy else "without other load"
    lines = [
        "# The gate's own error rates",
        "",
        f"Written by `harness check --self-test`, {machine}: {processes} fresh processes (`pool.csv`), each of which "
        f"timed three variants plain and with 5, 10, 15 and 20 % of their work done twice, "
        f"on {threads} thread{'s' if threads > 1 else ''}.",
        "",
        f"A trial is a whole decision with its second round, on blocks of four processes that took turns, drawn from "
        f"the pool without replacement. Trials share blocks, so they are not independent: the pool holds processes for "
        f"this many independent trials: {independent}. The bounds (one-sided 95 %, Clopper-Pearson) hold for drawing "
        "from this pool, and are optimistic for another day on this machine.",
        "",
        "| setting | variant | extra work | realised | regressed | bound | inconclusive | not gateable | ok | again |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rates:
        bound = (
            f"≤ {100 * r.regressed_at_most:.1f} %" if not r.extra_percent else f"≥ {100 * r.regressed_at_least:.1f} %"
        )
        lines.append(
            f"| {r.setting} | {r.specimen} | {r.extra_percent} % | {r.realised_percent:+.1f} % | "
            f"{100 * r.regressed_rate:.1f} % of {r.trials} | {bound} | {r.inconclusive} | {r.not_gateable} | {r.ok} | "
            f"{r.second_rounds} |"
        )
    lines += ["", "## Other tools' rules on the same samples", ""]
    lines += [
        "A process against the one in its place in the next block, a run against the run after it, as these tools "
        "compare; the share of comparisons reported as slower.",
        "",
        f"| rule | whose code | {' | '.join(f'+{extra} %' if extra else 'unchanged' for extra in pool.EXTRAS)} |",
        f"|---|---|{'---|' * len(pool.EXTRAS)}",
    ]
    for rule in dict.fromkeys(other.rule for other in others):
        mine = [other for other in others if other.rule == rule]
        shares = []
        for extra in pool.EXTRAS:
            some = [other for other in mine if other.extra_percent == extra]
            shares.append(f"{100 * sum(o.slower for o in some) / sum(o.comparisons for o in some):.1f} %")
        lines.append(f"| {rule} | {mine[0].source} | {' | '.join(shares)} |")
    lines += ["", "## Mutants", "", "| what was planted | caught as |", "|---|---|"]
    lines += [f"| {o.name} | {o.what if o.caught else '**not caught**'} |" for o in caught]
    return "\n".join(lines) + "\n"


def _verdict(decision: Decision) -> str:
    return "ok" if decision.verdict == "implausible" else decision.verdict


def _csv(path: Path, kind: Callable[..., Any], rows: Sequence[Any]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(kind)], lineterminator="\n")  # type: ignore[arg-type]
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)

"""From which n does A beat B? A doubling scan upwards, then bisection, on interleaved A/B measurements. No torch.

The scan ends where A wins twice in a row: nothing beyond that n is tried, and the answer says how far it went.

answer = find(probe, low=128, high=65536)      # probe(n) -> Probe: the latency ratio A/B with its interval
print(answer.sentence("anchor", "flash"))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness import stats

PRECISION = 1.05


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The latency ratio A/B at n with its 95 % interval; a_ms and b_ms are None when that one cannot run there."""

    n: int
    ratio: float
    low: float
    high: float
    a_ms: float | None = None
    b_ms: float | None = None
    note: str = ""

    @property
    def winner(self) -> str:
        """'A', 'B', or 'tie' when the interval holds 1."""
        return "A" if self.high < 1 else "B" if self.low > 1 else "tie"


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """kind: 'found', 'always' (A wins from the first n on) or 'never' (A does not win at the end of the range).

    n is the estimate, low and high enclose it: the nearest n at which B, and from which A, wins beyond doubt; None
    where the range holds no such n.
    """

    kind: str
    n: int | None
    low: int | None
    high: int | None
    probes: tuple[Probe, ...]

    def sentence(self, a: str, b: str) -> str:
        """The answer in words."""
        first, last = self.probes[0].n, self.probes[-1].n
        early = [p.n for p in self.probes if p.winner == "A" and (self.kind == "never" or p.n < (self.low or 0))]
        wins = ", ".join(map(str, early))
        if self.kind == "always":
            return (
                f"{a} beats {b} at every n tried, {first} to {last}: a crossover, if there is one, lies below {first}"
            )
        if self.kind == "never" and early:
            return f"no crossover: {a} beats {b} at n = {wins} but not at n = {last}, the largest tried"
        if self.kind == "never":
            return f"no crossover: {a} does not beat {b} at any n tried from {first} to {last}"
        interval = f"between {self.low if self.low is not None else f'below {first}'} and {self.high}"
        also = f", and also at n = {wins}" if early else ""
        return f"{a} beats {b} from about n = {self.n} on ({interval}; tried up to {last}){also}"


def find(probe: Callable[[int], Probe], *, low: int, high: int) -> Crossover:
    """Double n from `low` until A wins beyond doubt twice, then bisect the stretch of its lead to within 5 % of n."""
    scanned: list[Probe] = []
    n = low
    while True:
        scanned.append(probe(n))
        if n >= high or [p.winner for p in scanned[-2:]] == ["A", "A"]:
            break
        n = min(2 * n, high)
    answer = among(scanned)
    if answer.kind != "found":
        return answer
    probes = list(scanned)
    below, upper = _around(scanned)
    while upper.n / below.n > PRECISION and (middle := round(math.sqrt(upper.n * below.n))) not in (upper.n, below.n):
        probes.append(probe(middle))
        if probes[-1].ratio < 1:
            upper = probes[-1]
        else:
            below = probes[-1]
    return _found(probes, below, upper)


def among(probes: Sequence[Probe]) -> Crossover:
    """The answer from probes that are there already, such as those of a stored run, by rising n; none is added."""
    if probes[-1].winner != "A":
        return Crossover(kind="never", n=None, low=None, high=None, probes=tuple(probes))
    if _lead(probes) == 0 and probes[0].winner == "A":
        return Crossover(kind="always", n=None, low=None, high=probes[0].n, probes=tuple(probes))
    return _found(probes, *_around(probes))


def compare(a_ms: Sequence[float], b_ms: Sequence[float], *, n: int) -> Probe:
    """The ratio of two interleaved series: the median of the pairs' ratios, with its interval."""
    ratios = np.log(stats.finite(a_ms)) - np.log(stats.finite(b_ms))
    low, high = stats.median_interval(ratios)
    return Probe(
        n=n, ratio=math.exp(float(np.median(ratios))), low=math.exp(low), high=math.exp(high),
        a_ms=float(np.median(a_ms)), b_ms=float(np.median(b_ms)),
    )  # fmt: skip


def one_sided(n: int, *, a_runs: bool, b_runs: bool, note: str) -> Probe:
    """A probe where not both run: who runs wins; where neither does, nobody."""
    if a_runs == b_runs:
        return Probe(n=n, ratio=1.0, low=0.0, high=math.inf, note=note)
    ratio = 0.0 if a_runs else math.inf
    return Probe(n=n, ratio=ratio, low=ratio, high=ratio, note=note)


def _found(probes: Sequence[Probe], below: Probe, upper: Probe) -> Crossover:
    """The crossing between two neighbours, enclosed by the nearest n at which B, and from which A, wins for sure."""
    estimate = _interpolate(below, upper)
    sure_b = [p.n for p in probes if p.winner == "B" and p.n <= estimate]
    sure_a = [p.n for p in probes if p.winner == "A" and p.n >= estimate]
    ordered = tuple(sorted(probes, key=lambda p: p.n))
    return Crossover(kind="found", n=estimate, low=max(sure_b, default=None), high=min(sure_a), probes=ordered)


def _around(scanned: Sequence[Probe]) -> tuple[Probe, Probe]:
    """The last probe before A's lead and the first of it."""
    lead = max(_lead(scanned), 1)
    return scanned[lead - 1], scanned[lead]


def _lead(scanned: Sequence[Probe]) -> int:
    """The index from which every later probe has A ahead."""
    index = len(scanned) - 1
    while index > 0 and scanned[index - 1].ratio < 1:
        index -= 1
    return index


def _interpolate(below: Probe, above: Probe) -> int:
    """Where the straight line through log ratio over log n crosses ratio 1, between two probes."""
    ends = [min(max(p.ratio, 1e-6), 1e6) for p in (below, above)]
    start, stop = math.log(ends[0]), math.log(ends[1])
    share = 0.5 if start < 0 or stop >= 0 or not (below.a_ms and above.a_ms and above.b_ms) else start / (start - stop)
    return round(math.exp(math.log(below.n) + share * (math.log(above.n) - math.log(below.n))))

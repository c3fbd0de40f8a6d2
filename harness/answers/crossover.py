"""From which n does A beat B? A doubling scan upwards, then bisection, on interleaved A/B measurements. No torch.

The scan ends where A wins twice in a row: nothing beyond that n is tried, and the answer says how far it went.

answer = find(probe, low=128, high=65536)      # probe(n) -> Probe: the latency ratio A/B with its interval
print(answer.sentence("anchor", "flash"))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness import stats

PRECISION = 1.05
FALL = 1.1  # times the other's interval: what a time may fall by as n grows


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The latency ratio A/B at n with its 95 % interval; a_ms and b_ms are None when that one cannot run there.

    a_range, b_range: the intervals of their times; contended: what else the machine did meanwhile, "" where nothing.
    """

    n: int
    ratio: float
    low: float
    high: float
    a_ms: float | None = None
    b_ms: float | None = None
    note: str = ""
    a_range: tuple[float, float] | None = None
    b_range: tuple[float, float] | None = None
    contended: str = ""

    @property
    def winner(self) -> str:
        """'A', 'B', or 'tie' when the interval holds 1."""
        return "A" if self.high < 1 else "B" if self.low > 1 else "tie"


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """kind: 'found', 'always' (A wins from the first n on), 'never' (A does not win at the end of the range) or
    'refused': the probes do not bear an answer, and `why` says so.

    n is the estimate, low and high enclose it: the nearest n at which B, and from which A, wins beyond doubt; None
    where the range holds no such n.
    """

    kind: str
    n: int | None
    low: int | None
    high: int | None
    probes: tuple[Probe, ...]
    why: str = ""

    @property
    def contended(self) -> tuple[Probe, ...]:
        """The probes that were taken while the machine was not quiet."""
        return tuple(probe for probe in self.probes if probe.contended)

    def sentence(self, a: str, b: str) -> str:
        """The answer in words; before it, what of it rests on a machine that was not quiet."""
        if self.kind == "refused":
            return f"no answer: {self.why.format(a=a, b=b)}"
        doubted = self.contended
        if not doubted:
            return self._sentence(a, b)
        sizes = ", ".join(f"n = {probe.n}" for probe in doubted[:4]) + (" and others" if len(doubted) > 4 else "")
        return f"CONTENDED at {sizes} ({next(iter(doubted)).contended}): {self._sentence(a, b)}"

    def _sentence(self, a: str, b: str) -> str:
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
    answer, deciding = _judge(scanned)
    if answer.kind != "found" or _fall(scanned):
        return _checked(answer, *deciding)
    probes = list(scanned)
    below, upper = _around(scanned)
    while upper.n / below.n > PRECISION and (middle := round(math.sqrt(upper.n * below.n))) not in (upper.n, below.n):
        probes.append(probe(middle))
        if probes[-1].ratio < 1:
            upper = probes[-1]
        else:
            below = probes[-1]
    return _checked(_found(probes, below, upper), below, upper)


def among(probes: Sequence[Probe]) -> Crossover:
    """The answer from probes that are there already, such as those of a stored run, by rising n; none is added."""
    answer, deciding = _judge(probes)
    return _checked(answer, *deciding)


def compare(a_ms: Sequence[float], b_ms: Sequence[float], *, n: int, contended: str = "", factor: float = 1.0) -> Probe:
    """The ratio of two interleaved series: the median of the pairs' ratios, with its interval.

    factor: by which a machine that was not quiet (contended: why) may have changed it; the intervals are so much wider.
    """
    ratios = np.log(stats.finite(a_ms)) - np.log(stats.finite(b_ms))
    low, high = stats.median_interval(ratios)
    ranges = [(ends[0] / factor, ends[1] * factor) for ends in map(stats.median_interval, (a_ms, b_ms))]
    return Probe(
        n=n, ratio=math.exp(float(np.median(ratios))), low=math.exp(low) / factor, high=math.exp(high) * factor,
        a_ms=float(np.median(a_ms)), b_ms=float(np.median(b_ms)), a_range=ranges[0], b_range=ranges[1],
        contended=contended,
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


def _judge(probes: Sequence[Probe]) -> tuple[Crossover, tuple[Probe, ...]]:
    """What the ratios say, and the probes that it hangs on."""
    if probes[-1].winner != "A":
        return Crossover(kind="never", n=None, low=None, high=None, probes=tuple(probes)), (probes[-1],)
    if _lead(probes) == 0 and probes[0].winner == "A":
        return Crossover(kind="always", n=None, low=None, high=probes[0].n, probes=tuple(probes)), (probes[0],)
    around = _around(probes)
    return _found(probes, *around), around


def _checked(answer: Crossover, *deciding: Probe) -> Crossover:
    """The answer, or a refusal: where times fall as n grows, and where a deciding probe was disturbed and leaves open
    who wins."""
    why = _fall(answer.probes)
    open_ = [probe for probe in deciding if probe.contended and probe.winner == "tie"]
    if not why and open_:
        places = " and ".join(f"n = {probe.n}" for probe in open_)
        why = (
            f"it hangs on {places}, measured while the machine was not quiet ({open_[0].contended}); stop other work "
            "(harness doctor names it), or give --patience more seconds to wait for quiet"
        )
    if not why:
        return answer
    return replace(answer, kind="refused", n=None, low=None, high=None, why=why)


def _fall(probes: Sequence[Probe]) -> str:
    """Where a variant takes less time for more tokens, by more than both intervals allow; "" where nothing falls."""
    ordered = sorted(probes, key=lambda probe: probe.n)
    for name, side in (("{a}", "a_range"), ("{b}", "b_range")):
        timed = [(probe.n, getattr(probe, side)) for probe in ordered if getattr(probe, side) is not None]
        for at, (n, (low, _)) in enumerate(timed):
            for later, (_, high) in timed[at + 1 :]:
                if high * FALL < low:
                    return (
                        f"the times of {name} fall as n grows, from at least {low:.3g} ms at n = {n} to at most "
                        f"{high:.3g} ms at n = {later}: something disturbed them; measure again on a quiet machine"
                    )
    return ""


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

"""From which n does A beat B? A doubling scan upwards, then bisection, on interleaved A/B measurements. No torch.

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
    """kind: 'found', 'always' (A wins from the first n on) or 'never' (A wins at no n of the range).

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
        if self.kind == "always":
            return f"{a} beats {b} already at n = {first}: the crossover lies below the range"
        if self.kind == "never":
            return f"no crossover: {a} does not beat {b} at any n tried from {first} to {last}"
        interval = f"{self.low if self.low is not None else f'below {first}'} to {self.high}"
        return f"{a} beats {b} from about n = {self.n} on (between {interval})"


def find(probe: Callable[[int], Probe], *, low: int, high: int) -> Crossover:
    """Double n from `low` until A wins beyond doubt, then bisect that stretch to within 5 % of n."""
    scanned: list[Probe] = []
    n = low
    while True:
        scanned.append(probe(n))
        if scanned[-1].winner == "A" or n >= high:
            break
        n = min(2 * n, high)
    if scanned[-1].winner != "A":
        return Crossover(kind="never", n=None, low=None, high=None, probes=tuple(scanned))
    if len(scanned) == 1:
        return Crossover(kind="always", n=None, low=None, high=low, probes=tuple(scanned))
    probes = list(scanned)
    above = _first_win(scanned)
    below = scanned[above - 1] if above else scanned[0]
    upper = scanned[above]
    while upper.n / below.n > PRECISION and (middle := round(math.sqrt(upper.n * below.n))) not in (upper.n, below.n):
        probes.append(probe(middle))
        if probes[-1].ratio < 1:
            upper = probes[-1]
        else:
            below = probes[-1]
    estimate = _interpolate(below, upper)
    sure_b = [p.n for p in probes if p.winner == "B" and p.n <= estimate]
    sure_a = [p.n for p in probes if p.winner == "A" and p.n >= estimate]
    ordered = tuple(sorted(probes, key=lambda p: p.n))
    return Crossover(kind="found", n=estimate, low=max(sure_b, default=None), high=min(sure_a), probes=ordered)


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


def _first_win(scanned: Sequence[Probe]) -> int:
    """The index from which every later probe has A ahead."""
    index = len(scanned) - 1
    while index > 1 and scanned[index - 1].ratio < 1:
        index -= 1
    return index


def _interpolate(below: Probe, above: Probe) -> int:
    """Where the straight line through log ratio over log n crosses ratio 1, between two probes."""
    ends = [min(max(p.ratio, 1e-6), 1e6) for p in (below, above)]
    start, stop = math.log(ends[0]), math.log(ends[1])
    share = 0.5 if start <= 0 or stop >= 0 or not (below.a_ms and above.a_ms and above.b_ms) else start / (start - stop)
    return round(math.exp(math.log(below.n) + share * (math.log(above.n) - math.log(below.n))))

"""What could be chosen at a token count: every variant's stored time, memory and error there. pandas only.

    stock = Stock(runs, kinds={"flash": "exact", "nystrom": "approximate", "anchor": "different", "none": "floor"})
    for setting, lines in stock.settings(): candidates, failed = stock.at(lines, 16384)

A figure that was not measured at n is interpolated between the nearest measured n by the power law through both, and
says so; beyond the measured n there is none. A floor is no candidate. Unlike machines, devices, scopes, shapes, phases
and dtypes stay apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness import stats
from harness.store.contention import reason
from harness.store.selection import FILE, PANEL, Frame, labelled, metric_rows, pool_seeds, settings, sort_key

if TYPE_CHECKING:
    import numpy

    from harness.figures import Run

SETTING = (*FILE, *PANEL)
MOST_MISSED = 100.0  # logarithm of a factor that is as good as infinite
DRAWN_VALUES, MOST_DRAWS, FEWEST_DRAWS = 2_000_000, 2000, 200


@dataclass(frozen=True, kw_only=True)
class Time:
    """A latency in ms with its 95 % interval; None where it has none."""

    ms: float
    low: float | None
    high: float | None

    @property
    def surely(self) -> float:
        """The most it may be: the interval's upper end."""
        return self.ms if self.high is None else self.high

    @property
    def half_width(self) -> float | None:
        """Half the interval relative to the median."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2 / self.ms


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """One variant, implementation and m at the n asked for.

    different: it is no estimate of softmax attention, by design: its error against that is told and judges nothing;
    options: its own, as a row's are written; error: approximation error, 0 for an exact variant by definition, None
    where it was not measured; memory: peak MiB;
    between: the two measured n that it was interpolated between, None where it was measured; miss: the largest factor
    by which the same interpolation misses the line's own measured points, None where no point lies between others;
    contended: what else the machine did while its latency was measured, "" where nothing.
    """

    attention: str
    backend: str
    label: str
    series: str
    m: int | None
    exact: bool
    time: Time
    error: float | None
    memory: float | None
    between: tuple[int, int] | None
    miss: float | None
    samples: int | None
    run_id: str
    raw: numpy.ndarray | None
    contended: str = ""
    different: bool = False
    options: str = ""

    @property
    def name(self) -> str:
        """`anchor m=64`."""
        return self.series + (f" m={self.m}" if self.m is not None else "")

    @property
    def implementation(self) -> str:
        """`anchor:sdpa`, or `anchor` where no one backend stands behind it."""
        return f"{self.attention}:{self.backend}".rstrip(":")


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A variant and m without a figure at n, and why."""

    attention: str
    backend: str
    series: str
    m: int | None
    status: str
    note: str

    @property
    def name(self) -> str:
        """`full`, `anchor m=64`."""
        return self.series + (f" m={self.m}" if self.m is not None else "")

    @property
    def implementation(self) -> str:
        """`anchor:sdpa`, or `anchor` where no one backend stands behind it."""
        return f"{self.attention}:{self.backend}".rstrip(":")


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times another's latency is this one's, with a 95 % interval where both have one."""

    value: float
    low: float | None
    high: float | None

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves 1 out."""
        return self.low is not None and self.high is not None and (self.low > 1 or self.high < 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """The latency rows of one variant, implementation and m of a setting, by rising n."""

    attention: str
    label: str
    series: str
    m: int | None
    rows: tuple[Any, ...]

    @cached_property
    def good(self) -> tuple[Any, ...]:
        """The rows that carry a value."""
        return tuple(row for row in self.rows if row.status == "ok" and row.value > 0)

    @cached_property
    def miss(self) -> float | None:
        """See Candidate.miss."""
        return interpolation_miss([row.n for row in self.good], [row.value for row in self.good])


class Stock:
    """The rows of one run or several, the latest where two hold the same case of one machine."""

    def __init__(self, runs: Sequence[Run], *, kinds: Mapping[str, str]) -> None:
        import pandas

        self.runs = list(runs)
        self.kinds = known_kinds(runs, kinds)
        frames = [run.frame.assign(run=at) for at, run in enumerate(runs)]
        frame: Frame = frames[0] if len(frames) == 1 else pandas.concat(frames, ignore_index=True)
        frame = labelled(frame.sort_values("time_utc", kind="stable")).reset_index(drop=True)
        self.frame = labelled(pool_seeds(frame))
        errors = metric_rows(self.frame, "approximation_error")
        # Measured forward at scope core, the error hangs on no machine, backend or phase
        self._errors = {_definition(row): row.value for row in errors[errors["status"] == "ok"].itertuples()}
        memory = metric_rows(self.frame, "peak_memory")
        self._memory = {_case(row): row.value for row in memory[memory["status"] == "ok"].itertuples()}

    def settings(self) -> Iterator[tuple[dict[str, Any], list[Line]]]:
        """(setting, lines) of each machine, device, scope, shape, phase and dtype; exact variants' lines first."""
        for setting, rows in settings(metric_rows(self.frame, "latency"), SETTING):
            rows = rows.assign(size=rows["m"].fillna(-1))
            groups = rows.groupby(["attention", "label", "size"], sort=False)
            lines = [
                Line(
                    attention=name, label=label, series=group["series"].iloc[0], m=None if size < 0 else int(size),
                    rows=tuple(group.sort_values("n").itertuples()),
                )
                for (name, label, size), group in sorted(groups, key=lambda item: sort_key(*item[0]))
                if self.kinds.get(name) != "floor"
            ]  # fmt: skip
            yield setting, lines

    def at(self, lines: Sequence[Line], n: int) -> tuple[list[Candidate], list[Failed]]:
        """The candidates of a setting at n, fastest first, and those without a figure there."""
        found = [answer for line in lines if (answer := self._one(line, n)) is not None]
        candidates = [answer for answer in found if isinstance(answer, Candidate)]
        failed = [answer for answer in found if isinstance(answer, Failed)]
        return sorted(candidates, key=lambda candidate: candidate.time.ms), failed

    def _one(self, line: Line, n: int) -> Candidate | Failed | None:
        facts = {"attention": line.attention, "series": line.series, "m": line.m}
        kind = self.kinds.get(line.attention)
        exact = kind == "exact"
        more = {"different": kind == "different", "options": line.rows[0].options}
        for row in line.rows:
            if row.n != n:
                continue
            if row.status != "ok":
                return Failed(**facts, backend=row.backend, status=row.status, note=row.note)
            if row.value > 0:
                low, high = (value if math.isfinite(value) else None for value in (row.ci_low, row.ci_high))
                return Candidate(
                    **facts, backend=row.backend, label=line.label, exact=exact,
                    time=Time(ms=row.value, low=low, high=high),
                    error=0.0 if exact else self._errors.get(_definition(row)), memory=self._memory.get(_case(row)),
                    between=None, miss=None, samples=_whole(row.samples), run_id=row.run_id,
                    raw=self.runs[row.run].samples(row), contended=reason(row.note), **more,
                )  # fmt: skip
        below, above = [row for row in line.good if row.n < n], [row for row in line.good if row.n > n]
        return self._between(line, below[-1], above[0], n, {**facts, **more}, exact) if below and above else None

    def _between(self, line: Line, below: Any, above: Any, n: int, facts: dict[str, Any], exact: bool) -> Candidate:
        def through(first: float | None, second: float | None) -> float | None:
            known = first is not None and second is not None and first > 0 and second > 0
            return power_between((below.n, above.n), (first, second), n) if known else None

        middle, low, high = (through(getattr(below, k), getattr(above, k)) for k in ("value", "ci_low", "ci_high"))
        errors = [0.0] * 2 if exact else [self._errors.get(_definition(row)) for row in (below, above)]
        factor = line.miss or 1.0
        return Candidate(
            **facts, backend=below.backend if below.backend == above.backend else "", label=line.label, exact=exact,
            run_id=below.run_id, raw=None, samples=None,
            time=Time(
                ms=middle or math.nan, low=None if low is None else low / factor,
                high=None if high is None else high * factor,
            ),
            error=None if None in errors else max(e for e in errors if e is not None),
            memory=through(self._memory.get(_case(below)), self._memory.get(_case(above))),
            between=(int(below.n), int(above.n)), miss=line.miss, contended=reason(below.note) or reason(above.note),
        )  # fmt: skip


def ratio(of: Candidate, over: Candidate) -> Ratio:
    """of's latency over the other's: bootstrapped from raw samples where both keep them, else from both intervals."""
    if of.raw is not None and over.raw is not None and (over.raw > 0).all():
        draws = min(MOST_DRAWS, max(FEWEST_DRAWS, DRAWN_VALUES // (len(of.raw) + len(over.raw))))
        _, low, high = stats.ratio_interval(of.raw, over.raw, draws=draws)
        return Ratio(value=of.time.ms / over.time.ms, low=low, high=high)
    a, b = of.time, over.time
    value = a.ms / b.ms
    if a.low is None or a.high is None or b.low is None or b.high is None or min(a.low, b.low) <= 0:
        return Ratio(value=value, low=None, high=None)
    return Ratio(value=value, low=a.low / b.high, high=a.high / b.low)


def power_between(sizes: tuple[float, float], values: tuple[Any, Any], n: float) -> float:
    """The value at n of the power law through two points, in logarithms and relative to the first: between sizes that
    lie close together the exponent can be in the thousands, and n to that power is no number. Raises ValueError unless
    all are positive and the sizes differ."""
    (a, b), (first, second) = sizes, values
    if min(a, b, n, first, second) <= 0 or a == b:
        raise ValueError(f"a power law needs positive figures at two sizes, not {first} and {second} at {a} and {b}")
    share = math.log(n / a) / math.log(b / a)
    return math.exp((1 - share) * math.log(first) + share * math.log(second))


def interpolation_miss(sizes: Any, values: Any) -> float | None:
    """The largest factor between a measured point and what its two neighbours would have given; None without one."""
    triples = [(at - 1, at, at + 1) for at in range(1, len(sizes) - 1)]
    told = [
        abs(math.log(power_between((sizes[a], sizes[c]), (values[a], values[c]), sizes[b])) - math.log(values[b]))
        for a, b, c in triples
    ]
    return math.exp(min(max(told), MOST_MISSED)) if told else None


def known_kinds(runs: Sequence[Run], kinds: Mapping[str, str]) -> dict[str, str]:
    """`kinds` with what the runs themselves say of their variants, which holds for one's own, too.

    Older runs call approximate whatever is not exact: of a variant that is different by design they know no better.
    """
    known = dict(kinds)
    for run in runs:
        told = run.environment.get("kinds")
        for name, kind in told.items() if isinstance(told, dict) else ():
            if kind != "approximate" or kinds.get(str(name)) != "different":
                known[str(name)] = str(kind)
    return known


def _case(row: Any) -> tuple[str, str]:
    return row.machine, row.case_id


def _definition(row: Any) -> tuple[Any, ...]:
    return row.attention, row.options, row.b, row.h, row.n, row.d, _whole(row.m), row.dtype, row.seed


def _whole(value: Any) -> int | None:
    import pandas

    return None if pandas.isna(value) else int(value)

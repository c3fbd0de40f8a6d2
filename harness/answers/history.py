"""One case over commits and time, from stored runs, baselines and the gate's histories, and where its level stepped.

for line in lines(sources, Wanted.parse("anchor n=4096 m=64"), metric="latency"): print(line.case, line.steps)

Machines are never in one line. Points of a machine that was not quiet are shown and not judged.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.answers import steps
from harness.answers.compare import EXACT
from harness.answers.known import NO_DEFAULTS
from harness.cases.axes import sizes
from harness.errors import NothingToCompare, UsageError, brief, unknown
from harness.store import folders
from harness.store import runs as store
from harness.store.contention import reason
from harness.store.record import DTYPES, PHASES, SCOPES, Case, alike, parse_options
from harness.store.selection import Frame, sort_key

FILES = ("baseline.csv", "history.csv")  # of a folder, beside the runs in it
SIZES = ("n", "m", "b", "h", "d", "seed")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which cases are meant, in words as they are printed: `anchor:sdpa n=4096 m=64 float32 forward`, or an id."""

    name: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Wanted:
        """Raises UsageError for a word that is none of a case's."""
        name, *rest = text.split() or [""]
        if not name or "=" in name:
            raise UsageError(f"a benchmark begins with its variant, such as 'anchor n=4096 m=64', not {brief(text)!r}")
        found: dict[str, int] = {}
        words, options = [], []
        for word in rest:
            key, equals, value = word.partition("=")
            if key in SIZES and equals:
                found[key] = _size(key, value)
            elif equals:
                options.append(word)
            elif word in (*DTYPES, *PHASES, *SCOPES) or word == "cpu" or word.startswith("cuda"):
                words.append(word)
            else:
                valid = (*(f"{key}=" for key in SIZES), *DTYPES, *PHASES, *SCOPES, "cpu", "cuda:0")
                raise UsageError(unknown("word of a benchmark", word, valid))
        return cls(name=name, sizes=found, words=tuple(words), options=tuple(options))

    def of(self, frame: Frame, defaults: Mapping[str, Mapping[str, str]] = NO_DEFAULTS) -> Frame:
        """The rows that are meant; an option that a row lacks is at its variant's default."""
        attention, _, backend = self.name.partition(":")
        keep = (frame["attention"] == attention) & ((frame["backend"] == backend) if backend else True)
        keep |= frame["case_id"] == self.name
        for key, value in self.sizes.items():
            keep &= (frame[key] == value).fillna(False)
        for word in self.words:
            keep &= (frame[["dtype", "phase", "scope", "device"]] == word).any(axis=1)
        usual = defaults.get(attention, {})
        for key, _, value in (option.partition("=") for option in self.options):
            having = {text: _options(text).get(key, usual.get(key)) for text in frame["options"].unique()}
            keep &= frame["options"].isin(
                [text for text, one in having.items() if one is not None and alike(one, value)]
            )
        return frame[keep]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measurement: when, of which commit, its figure and interval, and why its machine was not quiet, or ""."""

    time_utc: str
    commit: str
    value: float
    low: float | None
    high: float | None
    source: str
    contended: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """One metric of one case on one machine, in the order of time; steps count among the quiet points.

    untested: why no step was sought, or "".
    """

    case: str
    case_id: str
    machine: str
    metric: str
    unit: str
    points: tuple[Point, ...]
    steps: tuple[steps.Step, ...]
    untested: str

    @property
    def quiet(self) -> list[Point]:
        """The points that steps are sought in."""
        return [point for point in self.points if not point.contended]

    def commits(self, step: steps.Step) -> tuple[str, str]:
        """The last commit that was surely before a step, and the first that is surely after it."""
        quiet = self.quiet
        return quiet[step.first - 1].commit, quiet[step.last].commit


def lines(
    sources: Sequence[Path], wanted: Wanted, *, metric: str = "latency",
    defaults: Mapping[str, Mapping[str, str]] = NO_DEFAULTS,
) -> list[Line]:  # fmt: skip
    """The line of each case and machine that is meant. A source: a run, a folder of runs, a baseline or history.

    Raises StoreError for a source that is none, NothingToCompare where none of them holds such a figure.
    """
    import pandas

    found = []
    for path in _paths(sources):
        try:
            found.append(store.read(path).assign(source=str(path)))
        except store.StoreError as error:
            if path in sources:
                raise
            warnings.warn(f"left out: {error}", store.RowsLeftOut, stacklevel=2)
    if not found:
        raise NothingToCompare(f"{', '.join(map(str, sources))} holds no run that can be read")
    whole: Frame = pandas.concat(found, ignore_index=True)
    metrics = [name for name in dict.fromkeys(whole["metric"]) if name != "definition"]
    if metric not in metrics:
        raise UsageError(unknown("metric in these runs", metric, metrics))
    meant = wanted.of(whole, defaults)
    if meant.empty:
        names = sorted(set(whole["attention"]))
        raise NothingToCompare(f"no case of {wanted.name} that was asked for; these runs hold {', '.join(names)}")
    rows = meant[(meant["metric"] == metric) & (meant["status"] == "ok")]
    rows = rows[rows["value"].map(math.isfinite)]
    if rows.empty:
        raise NothingToCompare(f"no case of {wanted.name} that was asked for has a figure of {metric}")
    rows = rows.drop_duplicates(["run_id", "machine", "case_id", "time_utc"])  # a merged run beside its parts
    told = [_line(own) for _, own in rows.groupby(["case_id", "machine"], sort=False)]
    return sorted(told, key=lambda line: (*sort_key(line.case.partition(" ")[0]), line.case, line.machine))


def _line(rows: Frame) -> Line:
    rows = rows.sort_values("time_utc", kind="stable")
    row: Any = next(rows.itertuples(index=False))
    points = tuple(
        Point(
            time_utc=each.time_utc, commit=each.commit, value=float(each.value), low=_known(each.ci_low),
            high=_known(each.ci_high), source=each.source, contended=reason(each.note),
        )
        for each in rows.itertuples(index=False)
    )  # fmt: skip
    quiet = [point.value for point in points if not point.contended]
    untested, found = "", list[steps.Step]()
    if row.metric in EXACT:
        found = steps.changes(quiet)
    elif len(quiet) < steps.FEWEST:
        untested = f"{len(quiet)} quiet points; a step is sought from {steps.FEWEST} on"
    elif min(quiet) <= 0:
        untested = "a step is sought in figures above zero"
    else:
        found = steps.find(quiet)
    return Line(
        case=str(_case(row)), case_id=row.case_id, machine=row.machine, metric=row.metric, unit=row.unit,
        points=points, steps=tuple(found), untested=untested,
    )  # fmt: skip


def _options(text: str) -> dict[str, str]:
    """A row's options; none of what is no key=value."""
    with suppress(ValueError):
        return parse_options(text)
    return {}


def _paths(sources: Sequence[Path]) -> list[Path]:
    """The runs and files behind the sources, once each."""
    found: list[Path] = []
    for source in sources:
        if not source.is_dir():
            found.append(source)
            continue
        inside = [*folders.below(source), *(source / name for name in FILES if (source / name).is_file())]
        found += inside or [source]
    return list(dict.fromkeys(found))


def _case(row: Any) -> Case:
    import pandas

    values = {name: getattr(row, name) for name in Case.__dataclass_fields__}
    whole = {name: int(values[name]) for name in ("b", "h", "n", "d", "seed")}
    return Case(**{**values, **whole, "m": None if pandas.isna(row.m) else int(row.m)})


def _size(key: str, text: str) -> int:
    try:
        found = [int(text)] if key == "seed" else sizes(text, axis="n")
    except ValueError as error:
        raise UsageError(f"{key}: {error}") from None
    if len(found) != 1:
        raise UsageError(f"{key}= takes one number in a benchmark, not {brief(text)!r}")
    return found[0]


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None

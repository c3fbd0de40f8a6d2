"""A case over commits and time from Python: its points, its steps, a figure; what `harness history` calls.

found = history("anchor n=4096 m=64", "results")
print(found)                      # as the command prints it; found.figure() draws it
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.answers import history as past
from harness.answers import steps
from harness.cases import catalogue
from harness.errors import UsageError, reason
from harness.store.replacing import replacing
from harness.store.table import folded

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

FORMATS = ("png", "svg", "pdf")
WORSE_BELOW = ("throughput", "flops_rate", "roofline_fraction", "top1", "top5", "map", "map50", "map75", "miou",
               "scaling_efficiency")  # fmt: skip
MOST_DRAWN = 12


@dataclass(frozen=True, repr=False)
class History:
    """The lines of what was asked for, one a case and machine."""

    lines: tuple[past.Line, ...]

    @property
    def frame(self) -> DataFrame:
        """Every point as a row of data."""
        import pandas

        return pandas.DataFrame([
            {"case": line.case, "case_id": line.case_id, "machine": line.machine, "metric": line.metric,
             "unit": line.unit, **asdict(point)}
            for line in self.lines for point in line.points
        ])  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """As `harness history --json` prints it."""
        return {"false_rate": steps.FALSE, "lines": [_json(line) for line in self.lines]}

    def figure(self) -> Figure:
        """A panel a line. Raises UsageError for more than can be read."""
        from harness.figures import _history

        if len(self.lines) > MOST_DRAWN:
            raise UsageError(f"{len(self.lines)} cases are too many for one figure, {MOST_DRAWN} at most; name fewer")
        return _history.draw([_drawn(line) for line in self.lines])

    def save(self, path: str | Path) -> Path:
        """Draw it into a .png, .svg or .pdf. Raises UsageError."""
        target = Path(path)
        kind = target.suffix.removeprefix(".").lower()
        if kind not in FORMATS:
            raise UsageError(f"a figure is written as .png, .svg or .pdf, not {target.name!r}")
        figure = self.figure()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target, several=True) as partial:
                figure.savefig(partial, format=kind)
        except OSError as error:
            raise UsageError(f"cannot write {target}: {reason(error)}") from None
        return target

    def __repr__(self) -> str:
        return "\n\n".join("\n".join(_told(line)) for line in self.lines)


def history(
    benchmark: str, sources: str | Path | Iterable[str | Path] = "results", *, metric: str = "latency"
) -> History:  # fmt: skip
    """One case, or several, over commits and time.

    benchmark: as cases are printed, as far as it is needed (`anchor:sdpa n=4096 m=64 float32`), or a case's id;
    sources: runs, folders of runs (with their baseline.csv and history.csv), baselines. Raises UsageError, StoreError,
    NothingToCompare.
    """
    named = [sources] if isinstance(sources, str | Path) else list(sources)
    known = catalogue.cached([], compute=False) or {"attentions": {}}  # without it an option is what rows say of it
    defaults = catalogue.defaults(known["attentions"])
    wanted = past.Wanted.parse(benchmark)
    return History(tuple(past.lines([Path(one) for one in named], wanted, metric=metric, defaults=defaults)))


def _told(line: past.Line) -> list[str]:
    unit = f" ({line.unit})" if line.unit not in ("", "1") else ""
    texts = [folded(f"{line.metric}{unit} of {line.case} on {line.machine}", 2)]
    at = {id(line.quiet[step.at]): step for step in line.steps}
    wide = max(len(point.commit) for point in line.points)
    for point in line.points:
        if step := at.get(id(point)):
            texts.append(f"  ── {_sentence(line, step)}")
        interval = f" ({point.low:.4g} to {point.high:.4g})" if point.low is not None and point.high is not None else ""
        when = point.time_utc[:16].replace("T", " ")
        doubt = "  contended" if point.contended else ""
        texts.append(f"{when}  {point.commit:<{wide}}  {point.value:.4g}{interval}{doubt}  {point.source}".rstrip())
    return [*texts, folded(_verdict(line), 2)]


def _sentence(line: past.Line, step: steps.Step) -> str:
    before, after = line.commits(step)
    worse = (step.ratio > 1) != (line.metric in WORSE_BELOW)
    sure = f", p = {step.p:.2g}" if step.p else ""
    return f"step ×{step.ratio:.3f} ({'worse' if worse else 'better'}{sure}): git log {before}..{after}"


def _verdict(line: past.Line) -> str:
    if line.untested:
        return f"no verdict: {line.untested}"
    count = f"{len(line.steps)} step{'s' if len(line.steps) != 1 else ''} in {len(line.quiet)} points"
    if line.metric in past.EXACT:
        return f"{count}; {line.metric} does not vary by itself, so every change is one"
    return f"{count}; {100 * steps.FALSE:g} % of histories that only vary show one"


def _json(line: past.Line) -> dict[str, Any]:
    told = asdict(line)
    for step, one in zip(told["steps"], line.steps, strict=True):
        step["before"], step["after"] = line.commits(one)
        step["ratio"] = one.ratio if math.isfinite(one.ratio) else None
    return told


def _drawn(line: past.Line) -> Any:
    from harness.figures._history import Drawn, Level, Mark

    quiet = line.quiet
    place = [at for at, point in enumerate(line.points) if not point.contended]
    ends = [0, *(step.at for step in line.steps), len(quiet)]
    levels = []
    for start, end in pairwise(ends):
        if end > start:
            value = statistics.median(point.value for point in quiet[start:end])
            levels.append(Level(start=place[start], end=place[end - 1] + 1, value=value, words=f"{value:.4g}"))
    unit = f" ({line.unit})" if line.unit not in ("", "1") else ""
    return Drawn(
        attention=line.case.partition(":")[0], title=f"{line.case} on {line.machine}", note=_verdict(line),
        label=f"{line.metric.replace('_', ' ')}{unit}", levels=tuple(levels),
        marks=tuple(Mark(commit=p.commit, value=p.value, low=p.low, high=p.high, contended=bool(p.contended))
                    for p in line.points),
        steps=tuple((place[step.first], place[step.last]) for step in line.steps),
    )  # fmt: skip

"""Figures, ONE FILE A FIGURE, found by file name: `harness plot --figure latency,roofline`. No torch.

A file defines `draw(run)`, which yields a Sheet for each file to write (one a machine, device, scope and b/h/d) or
raises Skip with the reason why this run has nothing for it. Adding a figure is adding a file here. May import store
and what is below.

    outcome = write(load(Path("results/cpu")), names(), Path("results/cpu/figures"))
"""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError, reason
from harness.figures._wish import AS_USUAL, Wish, styled
from harness.store import runs as store
from harness.store.clock import timed_by
from harness.store.contention import reason as why_contended
from harness.store.replacing import replacing
from harness.store.selection import Frame, labelled, metric_rows

if TYPE_CHECKING:
    import numpy
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
USUAL = ("png", "svg")


class Skip(Exception):
    """Why a run has nothing for this figure."""


@dataclass(frozen=True)
class Sheet:
    """One file to write: the figure's name is extended by `suffix` (empty where a run needs only one file)."""

    figure: Figure
    suffix: str = ""


@dataclass(frozen=True)
class Run:
    """What a figure draws from: labelled rows, the environment, the raw samples.

    whole: the rows before any selection, from which colours are given, so that they do not depend on it;
    clock: whose time its latencies are (harness.store.clock); wish: how its figures are wanted.
    """

    folder: Path
    frame: Frame
    environment: dict[str, Any]
    whole: Frame
    clock: str = "latency"
    wish: Wish = AS_USUAL

    def by(self, clock: str) -> Run:
        """The run with its latencies, and what is made of them, by another clock. Raises UsageError."""
        return replace(self, frame=timed_by(self.frame, clock), whole=timed_by(self.whole, clock), clock=clock)

    def rows(self, metric: str) -> Frame:
        """One row a case, failures included. Raises Skip where nothing of this metric succeeded."""
        rows = metric_rows(self.frame, metric)
        if not (rows["status"] == "ok").any():
            held = f"all {len(rows)} cases failed" if len(rows) else "it was not measured"
            raise Skip(f"no value of {metric}: {held}")
        return rows

    def samples(self, row: Any, metric: str = "latency") -> numpy.ndarray | None:
        """The raw samples behind a row, or None where they are not kept, are not those of this row alone, or are those
        of a machine that was not quiet: then the row's widened interval says more."""
        import pandas

        if why_contended(row.note):
            return None
        if metric == "latency":
            metric = getattr(row, "clock", metric)
        values = self._samples.get((row.case_id, metric))
        alone = values is not None and pandas.notna(row.samples) and len(values) == row.samples
        return values if alone else None

    @cached_property
    def _samples(self) -> dict[Any, numpy.ndarray]:
        kept = store.read_samples(self.folder)
        return {key: group.to_numpy(dtype=float) for key, group in kept.groupby(["case_id", "metric"])["value"]}


@dataclass
class Outcome:
    """The files of each figure drawn, and the reason of each figure skipped."""

    figures: dict[str, list[Path]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def names() -> list[str]:
    """The figures there are, in alphabetical order."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))


def load(path: Path) -> Run:
    """A run folder, or its measurements.csv. Raises StoreError for anything else."""
    folder = path if path.is_dir() else path.parent
    frame = labelled(store.read(path))
    return Run(folder=folder, frame=frame, environment=store.read_environment(folder), whole=frame)


def draw(run: Run, name: str) -> list[Sheet]:
    """The sheets of one figure, laid out; of `run.wish.over` where that is wished. Raises Skip where nothing is."""
    with styled(run.wish), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # names come from users
        module = importlib.import_module(f"{__name__}.{'_against' if run.wish.over else name}")
        if run.wish.scale and not getattr(module, "SCALES", False):
            raise Skip("its scales are its own; --scale is for a metric over n")
        sheets = list(module.draw(run))
        for sheet in sheets:
            if run.wish.title:
                sheet.figure.suptitle(run.wish.title, x=0.06, ha="left", fontsize=11, fontweight="bold")
            sheet.figure.draw_without_rendering()
            sheet.figure.set_layout_engine("none")  # laid out once, the same for every format
    return sheets


def write(run: Run, figures: Sequence[str], out: Path, *, formats: Sequence[str] = USUAL) -> Outcome:
    """Draw the figures into `out`, each file replaced atomically. Raises UsageError where `out` cannot be written."""
    outcome = Outcome()
    with styled(run.wish), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # names come from users
        for name in [run.wish.over] if run.wish.over else figures:
            try:
                sheets = draw(run, name)
            except Skip as reason:
                outcome.skipped[name] = str(reason)
                continue
            files = outcome.figures.setdefault(name, [])
            for sheet in sheets:
                for kind in formats:
                    files.append(out / f"{name}{'-' if sheet.suffix else ''}{sheet.suffix}.{kind}")
                    _save(sheet.figure, files[-1], kind)
    return outcome


def _save(figure: Figure, path: Path, kind: str) -> None:
    """Write to a hidden neighbour, then rename. Without dates or versions: the same rows give the same bytes."""
    undated: dict[str, dict[str, Any]] = {
        "svg": {"Date": None, "Creator": None}, "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, several=True) as partial:
            figure.savefig(partial, format=kind, metadata=undated[kind])
    except OSError as error:
        raise UsageError(f"cannot write {path}: {reason(error)}") from None

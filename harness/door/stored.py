"""A run in Python: what `harness.run` returns and `harness.read` finds on disk; one folder, or several side by side.

run = harness.read("results/cpu")                  # every run below it; rows of unlike machines are never mixed
run.table("latency", columns="n", phase="forward")
run.plot("latency", attention=["flash", "anchor"], title="On this laptop")
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from harness import figures
from harness.cases.filters import words
from harness.door.choosing import Only, axes, kept, texts
from harness.door.tables import Tables
from harness.errors import NothingToCompare, UsageError
from harness.figures._together import together
from harness.figures._wish import Wish
from harness.store import folders, markup, pivot, table
from harness.store import runs as store
from harness.store.rows import RowsLeftOut

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

MOST_LINES = 60


class RunLeftOut(RowsLeftOut):
    """A run below a folder could not be read; the others were."""


@dataclass(frozen=True, repr=False)
class Run:
    """Stored rows with what they were measured on. paths: a run's folder, or its measurements.csv, each."""

    paths: tuple[Path, ...]

    @cached_property
    def parts(self) -> tuple[figures.Run, ...]:
        """Each run by itself, as figures and reports take it."""
        return tuple(figures.load(path) for path in self.paths)

    @property
    def runs(self) -> list[Run]:
        """Each run by itself."""
        return [Run((path,)) for path in self.paths]

    @cached_property
    def frame(self) -> DataFrame:
        """The rows, one a metric of a case, in the columns of measurements.csv; failures included."""
        import pandas

        return pandas.concat([store.read(path) for path in self.paths], ignore_index=True)

    @cached_property
    def samples(self) -> DataFrame:
        """The raw samples: run_id, case_id, metric, index, value."""
        import pandas

        found = []
        for path, part in zip(self.paths, self.parts, strict=True):
            frame = store.read_samples(path if path.is_dir() else path.parent)
            run_ids = dict(zip(part.frame["case_id"], part.frame["run_id"], strict=True))
            frame.insert(0, "run_id", frame["case_id"].map(run_ids.get))
            found.append(frame)
        return pandas.concat(found, ignore_index=True)

    @property
    def environment(self) -> dict[str, Any]:
        """environment.json: machine, versions, ceilings, sessions. Raises UsageError where there are several runs."""
        self._single("one environment")
        return self.parts[0].environment

    @property
    def folder(self) -> Path:
        """The run's folder; of several the one that holds them all."""
        folders = [part.folder for part in self.parts]
        if len(folders) == 1:
            return folders[0]
        return Path(os.path.commonpath([folder.resolve() for folder in folders]))

    def table(
        self, metric: str | Sequence[str] = "latency", *, rows: str | Sequence[str] = "attention", columns: str = "n",
        **which: Unpack[Only],
    ) -> Tables:  # fmt: skip
        """Medians with intervals: what `rows` name down, `columns` across, a table for each setting beside these.

        rows: of attention, m, n, phase, dtype, machine, device, scope, problem, batch, heads, head_dim (or b, h, d).
        Raises UsageError for what this run does not hold, NothingToCompare where nothing is left.
        """
        down, across = (axes(given) for given in (texts(rows), [columns]))
        if len(across) != 1 or across[0] in down:
            raise UsageError(f"--columns takes one axis that --rows does not name, not {columns!r}")
        frame = self._drawn.frame
        if frame.empty:
            raise NothingToCompare(f"{self.name} holds no rows yet")
        metrics = words(texts(metric), what="metric in this run", valid=list(dict.fromkeys(frame["metric"])))
        frame = kept(frame, which)
        found = [one for name in metrics for one in pivot.pivot(frame, name, rows_by=down, columns_by=across[0])]
        if not found:
            raise NothingToCompare(f"{self.name} holds no case of all that was asked for at once")
        return Tables(tuple(found))

    @property
    def caption(self) -> str:
        """On which device, with which versions and by which command it was measured: what stands under a table."""
        from harness.door.captions import caption

        return caption(self.parts)

    def plot(
        self, figure: str = "", *, by: str = "latency", title: str = "", size: str = "", scale: str = "",
        style: str = "", x: str = "", y: str = "", **which: Unpack[Only],
    ) -> Figure:  # fmt: skip
        """One figure (latency; `harness plot` lists them) as matplotlib's; in a notebook it shows. See `draw`.

        Raises UsageError for an unknown one and where it takes several sheets, naming what to choose among;
        NothingToCompare where this run has nothing for it.
        """
        wish = self._wish(figure, title=title, size=size, scale=scale, style=style, x=x, y=y)
        name = wish.over or words([figure or "latency"], what="figure", valid=figures.names())[0]
        try:
            sheets = figures.draw(replace(self._only(which, by), wish=wish), name)
        except figures.Skip as reason:
            raise NothingToCompare(f"{name}: {reason}") from None
        if len(sheets) != 1:
            told = ", ".join(sheet.suffix for sheet in sheets) or "none"
            raise UsageError(
                f"{name} takes {len(sheets)} figures of these rows ({told}): choose one by machine, device, scope, "
                "batch, heads, head_dim, causal, kv_heads, kv_tokens, phase or dtype, or draw() them all into files"
            )
        return sheets[0].figure

    def draw(
        self, figure: str | Sequence[str] = (), *, out: str | Path | None = None,
        formats: str | Sequence[str] = figures.USUAL, by: str = "latency", title: str = "", size: str = "",
        scale: str = "", style: str = "", x: str = "", y: str = "", **which: Unpack[Only],
    ) -> figures.Outcome:  # fmt: skip
        """Write figures (all by default) as files into `out`, by default `figures/` in the run's folder.

        by: whose time latencies are: latency (the device's), host, or eager (the longer); one and the same on a CPU.
        title: a line above; size: inches, "5" or "5x3"; scale: log or linear, of values over n; style: one of
        matplotlib's or a file, on top of ours; x, y: instead of figures, a metric over an axis or another metric.
        Returns the files of each figure, and of each that was skipped the reason.
        """
        chosen = words(texts(figure), what="figure", valid=figures.names()) or figures.names()
        kinds = words(texts(formats), what="format", valid=figures.FORMATS)
        wish = self._wish(figure, title=title, size=size, scale=scale, style=style, x=x, y=y)
        drawn = replace(self._only(which, by), wish=wish)
        target = Path(out) if out is not None else store.inside(self.folder, "figures")
        return figures.write(drawn, chosen, target, formats=kinds)

    def export(
        self, path: str | Path | None = None, *, to: str = "parquet", samples: bool = False, **which: Unpack[Only]
    ) -> Path:
        """Write the rows, or the raw samples, of all its runs as one Parquet or CSV file; NAME.parquet here by default.

        A Parquet has the environment of each run in its metadata: pandas.read_parquet(path).attrs["environments"].
        Raises UsageError, NothingToCompare where nothing is left, Failure without pyarrow.
        """
        from harness.door.exporting import write

        rows = kept(self.frame, which)
        if rows.empty:
            raise NothingToCompare(f"{self.name} holds no row of what was asked for")
        frame: Any = self.samples if samples else rows
        if samples:
            cases = set(zip(rows["run_id"], rows["case_id"], strict=True))
            frame = frame[[key in cases for key in zip(frame["run_id"], frame["case_id"], strict=True)]]
        target = Path(path) if path is not None else Path(f"{self.folder.resolve().name}.{to}")
        known = {str(part.environment.get("run_id", at)): part.environment for at, part in enumerate(self.parts)}
        write(frame.reset_index(drop=True), target, kind=to, environments=known)
        return target

    def report(self, path: str | Path | None = None, *, by: str = "latency") -> Path:
        """Write one HTML file with the answer, the charts and every row; `report.html` in the folder by default.

        by: as in `draw`.
        """
        from harness import report
        from harness.cases import catalogue

        parts = [part.by(by) for part in self.parts]
        for one, part in zip(self.paths, parts, strict=True):
            if part.frame.empty:
                raise NothingToCompare(f"{one} holds no rows yet")
        target = Path(path) if path is not None else report.default_path(parts)
        report.check_target(target)
        known = catalogue.cached([]) or {"attentions": {}}
        entries = known["attentions"]
        page = report.build(parts, kinds=catalogue.kinds(entries), defaults=catalogue.defaults(entries))
        report.write(page, target)
        return target

    def save(self, folder: str | Path) -> Run:
        """Copy the run to a new folder, where it is kept; the run of that folder. For what was run without `out`."""
        from harness.door.runs import copy

        self._single("one run at a time")
        copy(self.folder, target := Path(folder))
        return read(target)

    def __repr__(self) -> str:
        text = table.render(self._summary)
        lines = text.splitlines()
        if len(lines) > MOST_LINES:
            lines = [*lines[:MOST_LINES], f"… and {len(lines) - MOST_LINES} more lines: .table() has them all"]
        return "\n".join([self._headline, *([""] if lines else []), *lines])

    def _repr_html_(self) -> str:
        import html

        return f"<p>{html.escape(self._headline)}</p>\n" + "\n".join(map(markup.html, self._summary))

    @property
    def _headline(self) -> str:
        frame = self._drawn.frame
        cases = frame.groupby(["machine", "case_id"], sort=False)["status"].agg(_status)
        statuses = ", ".join(f"{count} {status}" for status, count in cases.value_counts().items())
        places = ", ".join(f"{m} ({d})" for m, d in dict.fromkeys(zip(frame["machine"], frame["device"], strict=True)))
        what = "Run" if len(self.paths) == 1 else f"{len(self.paths)} runs"
        where = f" on {places}" if places else ""
        return f"{what} of {len(cases)} cases ({statuses or 'no rows yet'}){where}: {self.name}"

    @property
    def _summary(self) -> list[pivot.Table]:
        """The tables of its latency; none where it holds none, as a training's."""
        return pivot.pivot(self._drawn.frame, "latency")

    @property
    def name(self) -> Path:
        """What it is called: its path; of several runs the folder that holds them all."""
        return self.paths[0] if len(self.paths) == 1 else self.folder

    @cached_property
    def _drawn(self) -> figures.Run:
        """All rows as one run to draw from."""
        return self.parts[0] if len(self.parts) == 1 else together(self.paths, self.parts, folder=self.folder)

    def _only(self, which: Only, by: str) -> figures.Run:
        drawn = self._drawn.by(by)
        return replace(drawn, frame=kept(drawn.frame, which))

    def _wish(self, figure: str | Sequence[str], **wanted: str) -> Wish:
        wish = Wish.parse(**wanted, metrics=list(dict.fromkeys(self._drawn.frame["metric"])))
        if wish.over and texts(figure) not in ([], [""]):
            raise UsageError(f"--x and --y make a figure of their own, {wish.over}; leave --figure out")
        return wish

    def _single(self, what: str) -> None:
        if len(self.paths) != 1:
            raise UsageError(f"{what}: {self.folder} holds {len(self.paths)} runs; take one of .runs")


def read(where: str | Path | Iterable[str | Path]) -> Run:
    """One run's folder (or its measurements.csv), several, or a folder that holds runs at any depth, as one Run.

    Raises StoreError for what is no run; one below a folder that cannot be read is left out with a warning.
    """
    asked = [where] if isinstance(where, str | Path) else list(where)
    if not asked:
        raise UsageError("read takes a run's folder, a list of them or a folder that holds runs, not an empty list")
    found = [path for each in asked for path in _paths(Path(each))]
    run = Run(tuple(dict.fromkeys(found)))
    _ = run.parts  # what cannot be read is said now
    return run


def _paths(path: Path) -> list[Path]:
    below = []
    if path.is_dir() and not os.path.lexists(path / store.MEASUREMENTS):
        below = folders.below(path)
    if not below:
        return [path]
    kept = []
    for one in below:
        try:
            figures.load(one)
            kept.append(one)
        except store.StoreError as error:
            warnings.warn(f"left out: {error}", RunLeftOut, stacklevel=4)
    if not kept:
        raise store.StoreError(f"{path} holds no run that can be read")
    return kept


def _status(rows: Any) -> str:
    """Of a case: ok where any of its metrics is."""
    return "ok" if (rows == "ok").any() else rows.iloc[0]

"""A run on disk: rows appended and fsynced as they are measured, repaired and resumed, read back. No torch here.

    with Store.open(Path("results/mine"), metrics=("latency",), resume=True) as store:
        store.append(rows, samples)          # one case: samples first, then its rows, each in one write
    frame = read(Path("results/mine"))       # pandas, one row a metric of a case

The rows of a case stand together, so only the last case of a file can be incomplete; resuming cuts it off.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import brief, reason
from harness.store import opening
from harness.store.contention import mark_suspects
from harness.store.csvfile import CsvFile, StoreError, StoreFull, StoreLost, cells, check_header, full, locked
from harness.store.environment import ENVIRONMENT, check_version, content, machines_of, read_environment
from harness.store.former import is_former, may_hold, names, renamed, today
from harness.store.record import COLUMNS, SAMPLE_COLUMNS, STATUSES, Row
from harness.store.replacing import replacing
from harness.store.rows import COUNT, MAYBE, REAL, SEED, TEXT, WHOLE, RowsLeftOut, is_there, read_rows

if TYPE_CHECKING:
    import pandas

__all__ = [
    "ENVIRONMENT", "MEASUREMENTS", "SAMPLES", "SWEEP", "VARIANTS", "RowsLeftOut", "Store", "StoreError", "StoreFull",
    "StoreLost", "check_folder", "inside", "machines_of", "newest_run", "read", "read_environment", "read_samples",
    "read_sweep",
]  # fmt: skip

MEASUREMENTS, SAMPLES, SWEEP = "measurements.csv", "samples.csv", "sweep.toml"
VARIANTS = "variants"  # folder of the variants that a Python caller defined, written before the first row
KINDS = (
    dict.fromkeys(COLUMNS, TEXT) | dict.fromkeys(("value", "ci_low", "ci_high", "p20", "p80"), REAL)
    | dict.fromkeys(("b", "h", "n", "d"), COUNT) | dict.fromkeys(("m", "samples"), MAYBE) | {"seed": SEED}
)  # fmt: skip


class Store:
    """An open run folder; holds a lock that ends with the process, however it ends."""

    def __init__(
        self, folder: Path, metrics: Sequence[str], measurements: CsvFile, samples: CsvFile, *, guard: int
    ) -> None:  # fmt: skip
        self.folder, self.metrics, self._guard = folder, tuple(metrics), guard
        self.warnings: list[str] = []
        self.done: set[str] = set()
        self._measurements, self._samples = measurements, samples

    @classmethod
    def open(cls, folder: Path, *, metrics: Sequence[str], resume: bool = False, sweep: str = "") -> Store:
        """Create a run folder, or with `resume` repair and continue one.

        metrics: those the sweep asks for, in its order; a case that lacks one of them is incomplete. sweep: the text of
        sweep.toml, written before the first row so that a run can be resumed from its first moment on.
        Raises StoreError when the folder is not a run, already holds one (without resume), is in use, is of a newer
        version, is damaged or cannot be written; StoreFull when the disk is full.
        """
        check_folder(folder, resume=resume)
        opened: list[CsvFile] = []
        guard = -1
        try:
            folder.mkdir(parents=True, exist_ok=True)
            guard = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            taken = f"{folder} is in use by another run; wait for it or choose another --out"
            if not locked(guard):
                raise StoreError(taken)
            check_folder(folder, resume=resume)  # again: another run may have come and gone before the lock
            if sweep:
                _replace(folder / SWEEP, sweep)
            opened.append(CsvFile(folder / MEASUREMENTS, COLUMNS))
            if not opened[0].lock():
                raise StoreError(taken)
            opened.append(CsvFile(folder / SAMPLES, SAMPLE_COLUMNS))
            store = cls(folder, metrics, *opened, guard=guard)
            store._repair()
        except BaseException as error:
            for file in opened:
                file.close()
            if guard >= 0:
                os.close(guard)
            if isinstance(error, OSError):
                raise StoreError(f"cannot write in {folder}: {reason(error)}") from None
            raise
        return store

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *failure: object) -> None:
        self._samples.close()
        self._measurements.close()
        os.close(self._guard)

    def append(self, rows: Sequence[Row], samples: Mapping[str, Sequence[float]]) -> None:
        """Write one case: its raw samples (metric → values), then its rows; each file fsynced.

        Raises StoreFull; StoreLost where one of the files was deleted, replaced or changed meanwhile.
        """
        case_id = rows[0].case_id
        self._measurements.check()
        self._samples.append(
            (case_id, metric, i, repr(float(v))) for metric, values in samples.items() for i, v in enumerate(values)
        )
        ordered = sorted(rows, key=self._rank)
        self._measurements.append(row.cells() for row in ordered)
        self.done.add(case_id)

    def _rank(self, row: Row) -> int:
        """Figures first, a failure of the first metric last: only a case that failed whole starts with that one, so
        that a case's first row tells whether it was measured."""
        if row.status == "ok":
            return 0
        return 2 if row.metric == self.metrics[0] else 1

    def write_json(self, name: str, document: Any) -> None:
        """Replace a JSON file of the folder atomically."""
        self.write_text(name, json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Replace a text file of the folder atomically. Raises StoreFull, StoreLost."""
        try:
            _replace(self.folder / name, text)
        except StoreFull:
            self._measurements.check()  # where the folder is gone, that is the news
            raise

    def _repair(self) -> None:
        """Cut torn lines and an incomplete last case off both files; `done` becomes the ids of the complete cases."""
        lines = self._measurements.lines()
        rows = [cells(line) for line in lines]
        wrong = next((at for at, row in enumerate(rows, 2) if len(row) != len(COLUMNS)), None)
        if wrong is not None:
            path, found = self._measurements.path, len(rows[wrong - 2])
            raise StoreError(f"{path} is damaged and was left untouched: line {wrong} has {found} cells")
        for file in (self._measurements, self._samples):
            if file.mend():
                self.warnings.append(f"{file.path}: the last line was torn and has been cut off")
        id_at, status_at, metric_at = (COLUMNS.index(name) for name in ("case_id", "status", "metric"))
        tail = [row for row in rows if row[id_at] == rows[-1][id_at]]
        failed = len(tail) == 1 and tail[0][status_at] != "ok" and tail[0][metric_at] == self.metrics[0]
        if tail and not failed and not {row[metric_at] for row in tail} >= set(self.metrics):
            self.warnings.append(
                f"{self._measurements.path}: case {tail[0][id_at]} was incomplete; it will be measured again"
            )
            self._measurements.cut(lines[-len(tail) :])
            rows = rows[: -len(tail)]
        options_at = COLUMNS.index("options")
        self.done = {row[id_at] for row in rows}
        for row in {row[id_at]: row for row in rows if is_former(row[options_at])}.values():
            with suppress(ValueError):  # a cell that is no number: the row stays unread, as everywhere
                self.done.add(today(dict(zip(COLUMNS, row, strict=True))).case_id)
        orphans = []
        for line in reversed(self._samples.lines()):
            if line.split(b",", 1)[0].decode("utf-8", errors="replace") in self.done:
                break
            orphans.append(line)
        if orphans:
            self._samples.cut(orphans)


def check_folder(folder: Path, *, resume: bool) -> None:
    """Raise StoreError unless `folder` can become (or with resume, is) a run. Changes nothing."""
    try:
        _check_folder(folder, resume=resume)
    except OSError as error:
        raise StoreError(f"cannot read {folder}: {reason(error)}") from None


def _check_folder(folder: Path, *, resume: bool) -> None:
    if not folder.exists():
        if resume:
            raise StoreError(f"cannot resume {folder}: no such folder")
        above = next(parent for parent in folder.absolute().parents if parent.exists())
        if not above.is_dir():
            raise StoreError(f"cannot write in {folder}: {above} is a file")
        _check_writable(above, folder)
        return
    if not folder.is_dir():
        raise StoreError(f"{folder} is a file, not a folder")
    there = [is_there(folder / name) for name in (MEASUREMENTS, SAMPLES, SWEEP)]
    if there[0]:
        check_version(folder)
        check_header(folder / MEASUREMENTS, COLUMNS)
        check_header(folder / SAMPLES, SAMPLE_COLUMNS)
        if not resume and (folder / MEASUREMENTS).stat().st_size:
            raise StoreError(f"{folder} already holds a run; add --resume to finish it or choose another --out")
    elif resume and not there[2]:
        raise StoreError(f"cannot resume {folder}: it has neither {MEASUREMENTS} nor {SWEEP}")
    elif not resume and any(not entry.name.startswith(".") and entry.name != VARIANTS for entry in folder.iterdir()):
        raise StoreError(f"{folder} holds other files and no run; choose an empty or a new folder")
    _check_writable(folder, folder)


def _check_writable(place: Path, folder: Path) -> None:
    if not opening.writable(place):
        raise StoreError(f"cannot write in {folder}: {place} may not be written to (permission denied or read-only)")


def inside(folder: Path, name: str) -> Path:
    """The path of a run's file or folder. Raises StoreError where a link leads out of the run; it is not followed."""
    path = folder / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise StoreError(f"{path} is a link that leads out of the run; it was not followed")
    return path


def read(folder: Path | str) -> pandas.DataFrame:
    """The rows of a run, a folder or its measurements.csv, as a frame: numbers as numbers, text columns never NaN.

    A torn last line is left out. Rows that cannot be read are left out too, with the warning RowsLeftOut, and
    named in frame.attrs["left_out"].
    Raises StoreError when it is not a run or its columns are not those of measurements.csv.
    """
    folder = Path(folder)
    whole = folder.is_dir()
    path = folder / MEASUREMENTS if whole else folder
    if not (is_there(path) if whole else path.exists()):
        raise StoreError(f"{folder} is not a run: it has no {MEASUREMENTS}{_nearest(folder)}")
    if whole:
        check_version(folder)
    frame = read_rows(path, KINDS, links=not whole, check=_fault)
    return renamed(mark_suspects(frame, read_environment(folder)) if whole else frame)


def read_samples(folder: Path) -> pandas.DataFrame:
    """The raw samples of a run: case_id, metric, index, value; empty where the run kept none."""
    frame = read_rows(folder / SAMPLES, {"case_id": TEXT, "metric": TEXT, "index": WHOLE, "value": REAL})
    former = names(read_rows(folder / MEASUREMENTS, KINDS, check=_fault)) if may_hold(folder / MEASUREMENTS) else {}
    return frame.assign(case_id=frame["case_id"].replace(former)) if former else frame


def read_sweep(folder: Path) -> bytes | None:
    """The text of a run's sweep.toml, None where it has none. Raises StoreError where something else is there."""
    return content(folder / SWEEP)


def _replace(path: Path, text: str) -> None:
    try:
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise full(path, error) from None


def _fault(cells: Mapping[str, str]) -> str:
    """What is wrong with a row whose every cell can be read."""
    if cells["status"] not in STATUSES:
        return f"status is {brief(cells['status'], 40)!r}, none of {', '.join(STATUSES)}"
    first = cells["options"].partition(";")[0]
    return f"options hold {brief(first, 40)!r}, which is no key=value" if cells["options"] and "=" not in first else ""


def newest_run(results: Path) -> Path:
    """The run folder under `results` whose measurements.csv changed last. Raises StoreError when there is none."""
    runs = [path for path in results.glob(f"*/{MEASUREMENTS}") if path.is_file()]
    if not runs:
        raise StoreError(f"no run under {results}/; make one with: harness run --n 4096 --m 64")
    return max(runs, key=lambda path: path.stat().st_mtime_ns).parent


def _nearest(folder: Path) -> str:
    """`; did you mean …?` with the run of the most similar name, where there is no such folder; else nothing."""
    if folder.exists():
        return ""
    runs = [path.parent for path in folder.parent.glob(f"*/{MEASUREMENTS}")]
    near = difflib.get_close_matches(folder.name, [run.name for run in runs], n=1)
    return f"; did you mean {folder.with_name(near[0])}?" if near else ""

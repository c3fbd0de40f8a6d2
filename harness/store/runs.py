"""A run on disk: rows appended and fsynced as they are measured, repaired and resumed, read back. No torch here.

    with Store.open(Path("results/mine"), metrics=("latency",), resume=True) as store:
        store.append(rows, samples)          # one case: samples first, then its rows, each in one write
    frame = read(Path("results/mine"))       # pandas, one row a metric of a case

The rows of a case stand together, so only the last case of a file can be incomplete; resuming cuts it off.
"""

from __future__ import annotations

import difflib
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.store.contention import mark_suspects
from harness.store.csvfile import CsvFile, StoreError, StoreFull, cells, check_header, full
from harness.store.record import COLUMNS, SAMPLE_COLUMNS, SCHEMA, Row
from harness.store.replacing import replacing

if TYPE_CHECKING:
    import pandas

__all__ = [
    "ENVIRONMENT", "MEASUREMENTS", "SAMPLES", "SWEEP", "VARIANTS", "Store", "StoreError", "StoreFull", "check_folder",
    "inside", "newest_run", "read", "read_environment", "read_samples",
]  # fmt: skip

MEASUREMENTS, SAMPLES, ENVIRONMENT, SWEEP = "measurements.csv", "samples.csv", "environment.json", "sweep.toml"
VARIANTS = "variants"  # folder of the variants that a Python caller defined, written before the first row
TEXT_COLUMNS = (
    "run_id", "case_id", "time_utc", "machine", "commit", "attention", "backend", "scope", "phase", "dtype", "device",
    "options", "metric", "unit", "status", "note",
)  # fmt: skip
WHOLE_COLUMNS = ("b", "h", "n", "d", "m", "seed", "samples")
REAL_COLUMNS = ("value", "ci_low", "ci_high", "p20", "p80")


class Store:
    """An open run folder; holds a lock that ends with the process, however it ends."""

    def __init__(self, folder: Path, metrics: Sequence[str], measurements: CsvFile, samples: CsvFile) -> None:
        self.folder, self.metrics = folder, tuple(metrics)
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
        try:
            folder.mkdir(parents=True, exist_ok=True)
            opened.append(CsvFile(folder / MEASUREMENTS, COLUMNS))
            if not opened[0].lock():
                raise StoreError(f"{folder} is in use by another run; wait for it or choose another --out")
            check_folder(folder, resume=resume)  # again: another run may have come and gone before the lock
            opened.append(CsvFile(folder / SAMPLES, SAMPLE_COLUMNS))
            store = cls(folder, metrics, *opened)
            if sweep:
                store.write_text(SWEEP, sweep)
            store._repair()
        except BaseException as error:
            for file in opened:
                file.close()
            if isinstance(error, OSError):
                raise StoreError(f"cannot write in {folder}: {error.strerror}") from None
            raise
        return store

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *failure: object) -> None:
        self._samples.close()
        self._measurements.close()

    def append(self, rows: Sequence[Row], samples: Mapping[str, Sequence[float]]) -> None:
        """Write one case: its raw samples (metric → values), then its rows; each file fsynced. Raises StoreFull."""
        case_id = rows[0].case_id
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
        """Replace a text file of the folder atomically. Raises StoreFull."""
        target = self.folder / name
        try:
            with replacing(target) as partial:
                partial.write_text(text, encoding="utf-8")
        except OSError as error:
            raise full(target, error) from None

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
        self.done = {row[id_at] for row in rows}
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
        raise StoreError(f"cannot read {folder}: {error.strerror}") from None


def _check_folder(folder: Path, *, resume: bool) -> None:
    if not folder.exists():
        if resume:
            raise StoreError(f"cannot resume {folder}: no such folder")
        above = next(parent for parent in folder.absolute().parents if parent.exists())
        if not above.is_dir():
            raise StoreError(f"cannot write in {folder}: {above} is a file")
        return
    if not folder.is_dir():
        raise StoreError(f"{folder} is a file, not a folder")
    measurements, samples, _ = (inside(folder, name) for name in (MEASUREMENTS, SAMPLES, SWEEP))
    if measurements.exists():
        _check_version(folder)
        check_header(measurements, COLUMNS)
        check_header(samples, SAMPLE_COLUMNS)
        if not resume and measurements.stat().st_size:
            raise StoreError(f"{folder} already holds a run; add --resume to finish it or choose another --out")
    elif resume:
        raise StoreError(f"cannot resume {folder}: it has no {MEASUREMENTS}")
    elif any(not entry.name.startswith(".") and entry.name != VARIANTS for entry in folder.iterdir()):
        raise StoreError(f"{folder} holds other files and no run; choose an empty or a new folder")


def inside(folder: Path, name: str) -> Path:
    """The path of a run's file or folder. Raises StoreError where a link leads out of the run; it is not followed."""
    path = folder / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise StoreError(f"{path} is a link that leads out of the run; it was not followed")
    return path


def read(folder: Path) -> pandas.DataFrame:
    """The rows of a run as a frame: numbers as numbers, text columns never NaN. A torn last line is left out.

    Raises StoreError when it is not a run or its columns are not those of measurements.csv.
    """
    import pandas

    path = inside(folder, MEASUREMENTS) if folder.is_dir() else folder
    if not path.is_file():
        raise StoreError(f"{folder} is not a run: it has no {MEASUREMENTS}{_nearest(folder)}")
    if folder.is_dir():
        _check_version(folder)
    text = _whole_lines(path, COLUMNS)
    try:
        frame = pandas.read_csv(
            io.StringIO(text), dtype=dict.fromkeys(TEXT_COLUMNS, str), keep_default_na=False,
            converters=dict.fromkeys(WHOLE_COLUMNS, _whole) | dict.fromkeys(REAL_COLUMNS, _real),
        )  # fmt: skip
        frame = frame.astype(dict.fromkeys(WHOLE_COLUMNS, "Int64") | dict.fromkeys(REAL_COLUMNS, "float64"))
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path} is damaged: {error}") from None
    return mark_suspects(frame, read_environment(folder)) if folder.is_dir() else frame


def read_samples(folder: Path) -> pandas.DataFrame:
    """The raw samples of a run: case_id, metric, index, value; empty where the run kept none."""
    import pandas

    path = inside(folder, SAMPLES)
    text = _whole_lines(path, SAMPLE_COLUMNS) if path.is_file() else ",".join(SAMPLE_COLUMNS)
    try:
        return pandas.read_csv(
            io.StringIO(text), dtype={"case_id": str, "metric": str}, keep_default_na=False,
            converters={"index": int, "value": _real},
        )  # fmt: skip
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}") from None


def read_environment(folder: Path) -> dict[str, Any]:
    """environment.json of a run, {} where it has none. Raises StoreError when it is not a JSON object."""
    path = inside(folder, ENVIRONMENT)
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: {error}") from None
    if not isinstance(document, dict):
        raise StoreError(f"{path} is damaged: not a JSON object")
    return document


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


def _whole(text: str) -> int | None:
    return int(text) if text else None


def _real(text: str) -> float:
    """As Python reads it: exactly, whichever way this version of pandas does."""
    return float(text) if text else math.nan


def _whole_lines(path: Path, columns: Sequence[str]) -> str:
    """The file up to its last line's end; the header where even that was torn. Raises StoreError."""
    check_header(path, columns)
    whole = path.read_bytes()
    return whole[: whole.rfind(b"\n") + 1].decode("utf-8", errors="replace") or ",".join(columns)


def _check_version(folder: Path) -> None:
    schema = read_environment(folder).get("schema", SCHEMA)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise StoreError(f"{folder} was written by a newer harness (schema {schema}; this one reads up to {SCHEMA})")

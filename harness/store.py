"""A run on disk: rows appended and fsynced as they are measured, repaired and resumed, read back. No torch here.

    with Store.open(Path("results/mine"), metrics=("latency",), resume=True) as store:
        store.append(rows, samples)          # one case: samples first, then its rows, each in one write
    frame = read(Path("results/mine"))       # pandas, one row a metric of a case

The rows of a case stand together, so only the last case of a file can be incomplete; resuming cuts it off.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import Failure, UsageError
from harness.record import COLUMNS, SAMPLE_COLUMNS, SCHEMA, Row

if TYPE_CHECKING:
    import pandas

MEASUREMENTS, SAMPLES, ENVIRONMENT, SWEEP = "measurements.csv", "samples.csv", "environment.json", "sweep.toml"
TEXT_COLUMNS = (
    "run_id", "case_id", "time_utc", "machine", "commit", "attention", "backend", "scope", "phase", "dtype", "device",
    "options", "metric", "unit", "status", "note",
)  # fmt: skip


class StoreError(UsageError):
    """A folder or file that is not a run this version can use; nothing in it was changed."""


class StoreFull(Failure):
    """A write failed (disk full, quota, permissions): everything before it is intact."""


class Store:
    """An open run folder; holds a lock that ends with the process, however it ends."""

    def __init__(self, folder: Path, measurements: int, samples: int, warnings: list[str], done: set[str]) -> None:
        self.folder, self.warnings, self.done = folder, warnings, done
        self._measurements, self._samples = measurements, samples

    @classmethod
    def open(cls, folder: Path, *, metrics: Sequence[str], resume: bool = False) -> Store:
        """Create a run folder, or with `resume` repair and continue one.

        metrics: those the sweep asks for; a case that lacks one of them is incomplete.
        Raises StoreError when the folder is not a run, already holds one (without resume), is in use, is of a newer
        version or cannot be written.
        """
        check_folder(folder, resume=resume)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            measurements = os.open(folder / MEASUREMENTS, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise StoreError(f"cannot write in {folder}: {error.strerror}") from None
        try:
            fcntl.flock(measurements, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(measurements)
            raise StoreError(f"{folder} is in use by another run; wait for it or choose another --out") from None
        try:
            samples = os.open(folder / SAMPLES, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            warnings: list[str] = []
            done = _repair(folder, measurements, samples, metrics, warnings)
        except BaseException as error:
            os.close(measurements)
            if isinstance(error, OSError):
                raise StoreError(f"cannot write in {folder}: {error.strerror}") from None
            raise
        return cls(folder, measurements, samples, warnings, done)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *failure: object) -> None:
        os.close(self._samples)
        os.close(self._measurements)

    def append(self, rows: Sequence[Row], samples: Mapping[str, Sequence[float]]) -> None:
        """Write one case: its raw samples (metric → values), then its rows; each file fsynced. Raises StoreFull."""
        case_id = rows[0].case_id
        _write(
            self._samples,
            _lines((case_id, metric, i, repr(v)) for metric, values in samples.items() for i, v in enumerate(values)),
            self.folder / SAMPLES,
        )
        ordered = sorted(rows, key=lambda row: row.status != "ok")  # a case's first row tells whether it was measured
        _write(self._measurements, _lines(row.cells() for row in ordered), self.folder / MEASUREMENTS)
        self.done.add(case_id)

    def write_json(self, name: str, document: Any) -> None:
        """Replace a JSON file of the folder atomically."""
        self.write_text(name, json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Replace a text file of the folder atomically. Raises StoreFull."""
        target, partial = self.folder / name, self.folder / f".{name}.partial"
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StoreFull(f"cannot write {target}: {error.strerror}") from None


def check_folder(folder: Path, *, resume: bool) -> None:
    """Raise StoreError unless `folder` can become (or with resume, is) a run. Changes nothing."""
    if not folder.exists():
        if resume:
            raise StoreError(f"cannot resume {folder}: no such folder")
        return
    if not folder.is_dir():
        raise StoreError(f"{folder} is a file, not a folder")
    measurements = folder / MEASUREMENTS
    if measurements.exists():
        if not resume and measurements.stat().st_size:
            raise StoreError(f"{folder} already holds a run; add --resume to finish it or choose another --out")
        _check_version(folder)
        _check_header(measurements, COLUMNS)
        _check_header(folder / SAMPLES, SAMPLE_COLUMNS)
    elif resume:
        raise StoreError(f"cannot resume {folder}: it has no {MEASUREMENTS}")
    elif any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise StoreError(f"{folder} holds other files and no run; choose an empty or a new folder")


def read(folder: Path) -> pandas.DataFrame:
    """The rows of a run as a frame: numbers as numbers, text columns never NaN. A torn last line is left out.

    Raises StoreError when it is not a run or its columns are not those of measurements.csv.
    """
    import pandas

    path = folder / MEASUREMENTS if folder.is_dir() else folder
    if not path.is_file():
        raise StoreError(f"{folder} is not a run: it has no {MEASUREMENTS}")
    if folder.is_dir():
        _check_version(folder)
    _check_header(path, COLUMNS)
    whole = path.read_bytes()
    text = whole[: whole.rfind(b"\n") + 1].decode("utf-8", errors="replace")
    try:
        frame = pandas.read_csv(
            io.StringIO(text), dtype=dict.fromkeys(TEXT_COLUMNS, str), keep_default_na=False,
            na_values={name: [""] for name in COLUMNS if name not in TEXT_COLUMNS}, float_precision="round_trip",
        )  # fmt: skip
        for name in ("b", "h", "n", "d", "m", "seed", "samples"):
            frame[name] = frame[name].astype("Int64")
        for name in ("value", "ci_low", "ci_high", "p20", "p80"):
            frame[name] = frame[name].astype("float64")
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path} is damaged: {error}") from None
    return frame


def read_samples(folder: Path) -> pandas.DataFrame:
    """The raw samples of a run: case_id, metric, index, value; empty where the run kept none."""
    import pandas

    path = folder / SAMPLES
    if not path.is_file() or not path.stat().st_size:
        return pandas.DataFrame({name: [] for name in SAMPLE_COLUMNS})
    _check_header(path, SAMPLE_COLUMNS)
    whole = path.read_bytes()
    try:
        return pandas.read_csv(
            io.BytesIO(whole[: whole.rfind(b"\n") + 1]), dtype={"case_id": str, "metric": str},
            float_precision="round_trip",
        )  # fmt: skip
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}") from None


def read_environment(folder: Path) -> dict[str, Any]:
    """environment.json of a run, {} where it has none. Raises StoreError when it is not a JSON object."""
    path = folder / ENVIRONMENT
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
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


def _check_version(folder: Path) -> None:
    schema = read_environment(folder).get("schema", SCHEMA)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise StoreError(f"{folder} was written by a newer harness (schema {schema}; this one reads up to {SCHEMA})")


def _check_header(path: Path, columns: Sequence[str]) -> None:
    if not path.exists():
        return
    expected = ",".join(columns).encode()
    with path.open("rb") as file:
        found = file.readline(1 << 16).rstrip(b"\r\n")
    if found == expected or (expected.startswith(found) and path.stat().st_size == len(found)):
        return  # whole, or torn while the header itself was being written
    names = found.decode("utf-8", errors="replace").split(",")
    strange = [name[:40] for name in names if name not in columns]
    missing = [name for name in columns if name not in names]
    raise StoreError(
        f"{path} has foreign columns and was left untouched: "
        f"unknown {', '.join(strange[:4]) or 'none'}; missing {', '.join(missing[:4]) or 'none'}"
    )


def _repair(
    folder: Path, measurements: int, samples: int, metrics: Sequence[str], warnings: list[str]
) -> set[str]:  # fmt: skip
    """Cut torn lines and an incomplete last case off both files; return the ids of the complete cases."""
    lines = _whole_lines(measurements, COLUMNS, folder / MEASUREMENTS, warnings)
    cases = [next(csv.reader([line.decode("utf-8", errors="replace")])) for line in lines]
    id_at, status_at, metric_at = (COLUMNS.index(name) for name in ("case_id", "status", "metric"))
    last = cases[-1][id_at] if cases else None
    tail = [row for row in cases if row[id_at] == last]
    failed = len(tail) == 1 and tail[0][status_at] != "ok"
    if tail and not failed and not {row[metric_at] for row in tail} >= set(metrics):
        warnings.append(f"{folder / MEASUREMENTS}: case {last} was incomplete; it will be measured again")
        _cut(measurements, sum(len(line) + 1 for line in lines[-len(tail) :]))
        cases = cases[: -len(tail)]
    done = {row[id_at] for row in cases}
    orphans = 0
    for line in reversed(_whole_lines(samples, SAMPLE_COLUMNS, folder / SAMPLES, warnings)):
        if line.split(b",", 1)[0].decode("utf-8", errors="replace") in done:
            break
        orphans += len(line) + 1
    if orphans:
        _cut(samples, orphans)
    return done


def _whole_lines(
    handle: int, columns: Sequence[str], path: Path, warnings: list[str]
) -> list[bytes]:  # fmt: skip
    """The lines after the header; writes the header of an empty file and cuts a torn last line."""
    size = os.fstat(handle).st_size
    whole = os.pread(handle, size, 0) if size < 1 << 30 else path.read_bytes()
    header = (",".join(columns) + "\n").encode()
    if len(whole) < len(header):
        os.ftruncate(handle, 0)
        _write(handle, header, path)
        return []
    end = whole.rfind(b"\n") + 1
    if end < len(whole):
        warnings.append(f"{path}: the last line was torn and has been cut off")
        os.ftruncate(handle, end)
    return whole[:end].split(b"\n")[1:-1]


def _cut(handle: int, count: int) -> None:
    os.ftruncate(handle, os.fstat(handle).st_size - count)
    os.fsync(handle)


def _lines(rows: Iterable[Iterable[Any]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode("utf-8")


def _write(handle: int, data: bytes, path: Path) -> None:
    """Append all of `data` and fsync, or put the file back as it was and raise StoreFull."""
    if not data:
        return
    before = os.fstat(handle).st_size
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    except OSError as error:
        os.ftruncate(handle, before)
        reason = "no space left on the disk" if error.errno == errno.ENOSPC else error.strerror
        raise StoreFull(f"cannot write {path}: {reason}; every earlier row is intact") from None

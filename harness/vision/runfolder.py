"""A training's folder: checkpoints, metrics.csv, and the rows and environment that every run of this harness has.

    with RunFolder.open(Path("runs/a"), metrics=("top1", "loss", "params"), resume=False, write=True) as folder:
        folder.log(10, "train", {"loss": 0.7})           # lines of metrics.csv, synced
        folder.rows(case, readings)                      # the case's rows of measurements.csv, at the end

Only the main process writes (`write`); for the others every call does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import brief
from harness.machine import allocator, environment
from harness.store.csvfile import CsvFile, StoreError, check_header
from harness.store.curves import CURVE_COLUMNS, CURVES
from harness.store.record import SCHEMA, Case, Reading, Row, new_run_id
from harness.store.runs import ENVIRONMENT, Store, machines_of, read_environment

LAST, BEST = "last.safetensors", "best.safetensors"


@dataclass
class RunFolder:
    """An open folder; see above."""

    path: Path
    store: Store | None = None
    curves: CsvFile | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    tracker: Any = None  # of harness.vision.tracking, which gets what `log` writes

    @classmethod
    @contextmanager
    def open(
        cls, path: Path, *, metrics: Sequence[str], resume: bool, write: bool, curves: bool = True
    ) -> Iterator[RunFolder]:  # fmt: skip
        """Create the folder, or with `resume` continue in it. Raises StoreError as Store.open does."""
        if not write:
            yield cls(path)
            return
        with Store.open(path, metrics=metrics, resume=resume) as store:
            if not curves:
                yield cls(path, store)
                return
            check_header(path / CURVES, CURVE_COLUMNS)
            lines = CsvFile(path / CURVES, CURVE_COLUMNS)
            try:
                lines.mend()
                yield cls(path, store, lines)
            finally:
                lines.close()

    def describe(self, device: str, plan: Mapping[str, Any], *, plugins: Mapping[str, str] = {}) -> None:
        """Write environment.json: machine, versions, commit, the plan and the plugins' digests."""
        if self.store is None:
            return
        if not device.startswith("cuda"):
            allocator.keep()  # of what a step frees, as environment.json then says
        document = environment.collect(device)
        earlier, machine = read_environment(self.path), environment.machine(document)
        self.facts = {
            "schema": SCHEMA, "run_id": earlier.get("run_id") or new_run_id(),
            "machine": machine, "commit": environment.commit(), "device": device,
            "environment": document, "plan": dict(plan), "sessions": earlier.get("sessions", []),
        }  # fmt: skip
        if known := {**earlier.get("plugins", {}), **plugins}:
            self.facts["plugins"] = known
        if machines := machines_of(earlier, machine, document):
            self.facts["machines"] = machines
        self.store.write_json(ENVIRONMENT, self.facts)

    def log(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Add a line for each value."""
        if self.curves is not None:
            self.curves.append((step, split, name, repr(float(value))) for name, value in values.items())
        if self.tracker is not None:
            self.tracker.log({f"{split}/{name}": float(value) for name, value in values.items()}, step=step)

    def rewind(self, step: int) -> None:
        """Drop the lines after a step: a resumed training writes them again. Raises StoreError for no line of ours."""
        if self.curves is None:
            return
        lines = self.curves.lines()
        steps = [line.split(b",", 1)[0] for line in lines]
        wrong = next((at for at, text in enumerate(steps) if not text.isdigit() or len(text) > 16), None)
        if wrong is not None:
            what = brief(lines[wrong].decode("utf-8", "replace"), 40)
            raise StoreError(f"{self.curves.path} is damaged and was left untouched: line {wrong + 2} is {what!r}")
        kept = next((at for at, text in enumerate(steps) if int(text) > step), len(lines))
        self.curves.cut(lines[kept:])

    def rows(
        self, case: Case, readings: Iterable[Reading], samples: Mapping[str, Sequence[float]] | None = None
    ) -> list[Row]:
        """Append a case's rows, and its raw samples."""
        if self.store is None:
            return []
        stamp = {key: self.facts[key] for key in ("run_id", "machine", "commit")}
        rows = [Row.of(case, reading, time_utc=f"{_now():%Y-%m-%dT%H:%M:%SZ}", **stamp) for reading in readings]
        self.store.append(rows, samples or {})
        return rows

    def close_session(self, **log: Any) -> None:
        """Write how this session went into environment.json."""
        if self.store is not None:
            self.facts["sessions"].append(log)
            self.store.write_json(ENVIRONMENT, self.facts)


def _now() -> datetime:
    return datetime.now(UTC)

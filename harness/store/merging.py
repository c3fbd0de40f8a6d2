"""Several runs written as one folder: each case once, with its rows, samples and sessions. No torch.

merged = merge([Path("results/cpu"), Path("results/gpu")], Path("results/both"))

A row keeps its run_id, machine and commit. A case that several runs of one machine hold is the newest's; one that two
machines hold has no place in one folder, whose raw samples are kept by case: such runs are refused, and are read side
by side instead. Figures, reports and checkpoints stay where they are.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError, brief, reason
from harness.store import opening
from harness.store.ceilings import sessions_of
from harness.store.csvfile import CsvFile, StoreError, cells
from harness.store.record import COLUMNS, SAMPLE_COLUMNS, SCHEMA, new_run_id
from harness.store.rows import LEFT_OUT
from harness.store.runs import (
    ENVIRONMENT,
    MEASUREMENTS,
    SAMPLES,
    SWEEP,
    VARIANTS,
    check_folder,
    read,
    read_environment,
    read_sweep,
)

CASE, MACHINE = COLUMNS.index("case_id"), COLUMNS.index("machine")
Cells = list[str]


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What merging wrote: the folder, its cases, and how many older measurements of the same cases were left out."""

    folder: Path
    cases: int
    replaced: int


@dataclass(frozen=True)
class _Run:
    """One run as its files have it: the cells of its rows by case, its samples by case, and its documents."""

    folder: Path
    newest: str
    rows: dict[str, list[Cells]]
    samples: dict[str, list[Cells]]
    environment: dict[str, Any]

    @property
    def run_id(self) -> str:
        """As its environment tells, or its first row."""
        first = next(iter(self.rows.values()), [[""]])[0][0]
        return str(self.environment.get("run_id") or first)

    def machine(self, case: str) -> str:
        """Where a case was measured."""
        return self.rows[case][0][MACHINE]


def merge(folders: Sequence[Path], out: Path) -> Merged:
    """Write the cases of several runs into the new folder `out`, whole or not at all.

    Raises UsageError for fewer than two runs, for a case that two machines hold and for one plugin in two versions;
    StoreError for what is no run, has rows that cannot be read, or where `out` cannot be written.
    """
    different = list(dict.fromkeys(folder.resolve() for folder in folders))
    if len(different) < 2:
        raise UsageError(f"merging takes two runs or more, not {len(different)}")
    check_folder(out, resume=False)
    runs = sorted(map(_read, folders), key=lambda run: run.newest)
    held: dict[str, _Run] = {}
    met: dict[str, tuple[str, str]] = {}
    for run in runs:
        for case in run.rows:
            if case in held and held[case].machine(case) != run.machine(case):
                met[case] = held[case].machine(case), run.machine(case)
            held[case] = run
    if met:
        a, b = next(iter(met.values()))
        raise UsageError(
            f"{len(met)} of the same cases were measured on two machines ({a} and {b}), and a run holds each case "
            "once; put the runs into one folder instead: show, plot, report and harness.read take it and keep machines "
            "apart"
        )
    _write(runs, held, out)
    return Merged(folder=out, cases=len(held), replaced=sum(len(run.rows) for run in runs) - len(held))


def _read(folder: Path) -> _Run:
    if folder.is_file():
        raise UsageError(f"{folder} is a file; merging takes the folders of runs, with their samples and environment")
    frame = read(folder)
    if wrong := frame.attrs.get(LEFT_OUT, ()):
        raise StoreError(f"{folder} has rows that cannot be read, and is not merged: {wrong[0]}")
    rows, samples = _by_case(folder / MEASUREMENTS, CASE), _by_case(folder / SAMPLES, 0)
    for case, found in rows.items():
        if len({row[MACHINE] for row in found}) > 1:
            raise StoreError(f"{folder} holds case {case} of two machines, whose samples cannot be told apart")
    newest = str(frame["time_utc"].max()) if len(frame) else ""
    return _Run(folder=folder, newest=newest, rows=rows, samples=samples, environment=read_environment(folder))


def _by_case(path: Path, at: int) -> dict[str, list[Cells]]:
    """The whole lines of a file as cells, by the case that they are of."""
    try:
        data = opening.read(path) if opening.present(path) else b""
    except OSError as error:
        raise StoreError(f"cannot read {path}: {reason(error)}") from None
    found: dict[str, list[Cells]] = {}
    for line in data.split(b"\n")[1:-1]:
        if told := cells(line):
            found.setdefault(told[at], []).append(told)
    return found


def _write(runs: Sequence[_Run], held: Mapping[str, _Run], out: Path) -> None:
    """Beside it first, then in its place: a reader sees all of it or nothing."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        order = [(run, case) for run in runs for case in run.rows if held[case] is run]
        _append(partial / MEASUREMENTS, COLUMNS, [row for run, case in order for row in run.rows[case]])
        _append(partial / SAMPLES, SAMPLE_COLUMNS, [row for run, case in order for row in run.samples.get(case, ())])
        text = json.dumps(_environment(runs, held), indent=2, sort_keys=True, allow_nan=False) + "\n"
        (partial / ENVIRONMENT).write_text(text, encoding="utf-8")
        sweeps = {read_sweep(run.folder) for run in runs}
        if len(sweeps) == 1 and (sweep := sweeps.pop()) is not None:
            (partial / SWEEP).write_bytes(sweep)  # of one sweep in parts; any other merged run cannot be resumed
        for run in runs:
            _copy_variants(run.folder / VARIANTS, partial / VARIANTS)
        partial.rename(out)
    except OSError as error:
        raise StoreError(f"cannot write {out}: {reason(error)}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _append(path: Path, columns: Sequence[str], rows: Sequence[Cells]) -> None:
    file = CsvFile(path, columns)
    try:
        file.mend()
        file.append(rows)
    finally:
        file.close()


def _copy_variants(source: Path, target: Path) -> None:
    """The variants that a run's caller defined. Raises UsageError where two of one name differ."""
    if not source.is_dir() or source.is_symlink():
        return
    target.mkdir(exist_ok=True)
    for path in sorted(source.iterdir()):
        data = opening.read(path)
        if (target / path.name).exists() and (target / path.name).read_bytes() != data:
            raise UsageError(f"{path} differs from the variant of that name in another of these runs")
        (target / path.name).write_bytes(data)


def _environment(runs: Sequence[_Run], held: Mapping[str, _Run]) -> dict[str, Any]:
    """One environment.json: the newest run's, with every session, machine and place of the others."""
    newest = runs[-1].environment
    document: dict[str, Any] = {
        **{key: newest[key] for key in ("machine", "commit", "device", "environment") if key in newest},
        "schema": SCHEMA, "run_id": new_run_id(),
        "kinds": {}, "declared": {}, "machines": {}, "places": {}, "sessions": [],
        "merged": [{"run_id": run.run_id, "folder": run.folder.name, "cases": sum(held[c] is run for c in run.rows)}
                   for run in runs],
    }  # fmt: skip
    plugins: dict[str, str] = {}
    pooled: dict[str, dict[str, Any]] = {}  # of each machine: its ceilings by device, those of the newest run on top
    for run in runs:
        known = run.environment
        for key in ("kinds", "declared", "machines"):
            document[key] |= known.get(key, {})
        machine, device = str(known.get("machine", "")), str(known.get("device", ""))
        document["machines"].setdefault(machine, known.get("environment", {}))
        own = {"": {"machine": machine, "device": device, "ceilings": known.get("ceilings", {})}}
        for name, place in (known.get("places") or own).items():
            ceilings = pooled.setdefault(str(place.get("machine", machine)), {})
            for at, found in place.get("ceilings", {}).items():
                rates = {**ceilings.get(at, {}).get("matmul_tflops", {}), **found.get("matmul_tflops", {})}
                ceilings[at] = {**found, "matmul_tflops": rates}
            document["places"][f"{run.run_id} {name}".rstrip()] = {**place, "ceilings": ceilings}
        kept = {case for case in run.rows if held[case] is run}
        document["sessions"] += [_session(one, run.run_id, machine, kept) for one in sessions_of(known)]
        for name, digest in known.get("plugins", {}).items():
            if plugins.setdefault(name, digest) != digest:
                raise UsageError(f"the plugin {brief(name)} is another in {run.folder}: one run, one implementation")
    document["ceilings"] = pooled.get(str(newest.get("machine", "")), {})
    for key in ("wall_s", "measuring_s"):
        document[key] = sum(one.get(key, 0.0) for one in document["sessions"])
    return document | ({"plugins": plugins} if plugins else {})


def _session(session: Mapping[str, Any], run_id: str, machine: str, kept: set[str]) -> dict[str, Any]:
    """A session with whose it was; what it says of cases that another run has newer is left out."""
    told = {
        key: {case: why for case, why in session[key].items() if case in kept}
        for key in ("contended_cases", "suspect_cases") if isinstance(session.get(key), dict)
    }  # fmt: skip
    return {"run_id": run_id, "machine": machine, **session, **told}

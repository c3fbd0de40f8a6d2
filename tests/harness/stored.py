"""Runs with latencies that a test chooses, one line a case: what is made of stored rows is tested on these.

run = stored(tmp_path / "r", [Told("flash", n=1024, ms=10.0), Told("anchor", n=1024, m=64, ms=2.0, error=0.8)])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from making import case, row

from harness import figures
from harness.figures import Run
from harness.store.record import Reading
from harness.store.runs import Store

KINDS = {"full": "exact", "flash": "exact", "xformers": "exact", "none": "floor"}


@dataclass(frozen=True)
class Told:
    """One case: its median in ms with an interval of ±`half` of it (None: without), or a failure."""

    attention: str
    n: int
    ms: float = 1.0
    m: int | None = None
    half: float | None = 0.01
    error: float | None = None
    memory: float | None = 1.0
    status: str = "ok"
    note: str = ""
    samples: int = 20
    phase: str = "forward"
    dtype: str = "float32"
    machine: str = "here-2c-000000"
    options: str = ""
    backend: str = "reference"


def stored(folder: Path, told: Sequence[Told], *, environment: dict[str, Any] | None = None) -> Run:
    """Write the run, without raw samples, and load it."""
    with Store.open(folder, metrics=("latency",)) as store:
        for one in told:
            of = case(
                attention=one.attention, backend=one.backend, n=one.n, m=one.m, phase=one.phase, dtype=one.dtype,
                options=one.options,
            )  # fmt: skip
            store.append([row(of, reading, machine=one.machine) for reading in _readings(one)], {})
        store.write_json("environment.json", environment or {"schema": 1})
    return figures.load(folder)


def _readings(one: Told) -> list[Reading]:
    if one.status != "ok":
        return [Reading(metric="latency", status=one.status, note=one.note)]
    interval = {} if one.half is None else {"ci_low": one.ms * (1 - one.half), "ci_high": one.ms * (1 + one.half)}
    found = [Reading(metric="latency", value=one.ms, samples=one.samples, note=one.note, **interval)]
    if one.error is not None:
        found.append(Reading(metric="approximation_error", value=one.error, samples=1))
    if one.memory is not None:
        found.append(Reading(metric="peak_memory", value=one.memory, samples=1))
    return found

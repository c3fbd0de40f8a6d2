"""A place: one device that measures, with its engine, its ceilings and its canary. A visit is one case there. No torch.

    place = Place(Engine(plugins=[], device="auto"))
    session = place.open()                             # device, catalogue, environment, machine, commit
    visit = place.visit(resolution, Task(metrics=("latency",), budget_s=2, timeout_s=120))
    visit.outcome.readings

On Ray a place lives on the node that it stands for, and a visit is one call of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from harness.cases.catalogue import Resolution
from harness.engines.local import Outcome
from harness.measuring.metrics import Settings
from harness.store.record import Case, Reading


class Engine(Protocol):
    """What measures on one device; harness.engines.local has one."""

    def open(self) -> dict[str, Any]: ...
    def resolve(self, cases: Sequence[Case]) -> list[Resolution]: ...
    def free_bytes(self) -> int: ...
    def ceilings(self, dtypes: Sequence[str]) -> dict[str, Any]: ...
    def canary(self) -> float: ...
    def measure(self, case: Case, *, metrics: Sequence[str], settings: Settings, timeout_s: float) -> Outcome: ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """How the cases of a sweep are measured. ceilings: the dtypes whose ceilings a place measures before its first."""

    metrics: tuple[str, ...]
    budget_s: float
    timeout_s: float
    ceilings: tuple[str, ...] = ()
    canary_every_s: float = 5.0


@dataclass(frozen=True, kw_only=True)
class Visit:
    """What came of one case, and what the place did for itself before it: ceilings, canary (ms), and the seconds."""

    outcome: Outcome
    ceilings: dict[str, Any] | None = None
    canary_ms: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)


class Lost(RuntimeError):
    """The place is gone, and nobody knows what became of the case it held."""


class Seat(Protocol):
    """A place as a crew uses it: a Place, or what speaks for one on another machine. Raises Lost."""

    name: str

    def open(self) -> dict[str, Any]: ...
    def resolve(self, cases: Sequence[Case]) -> list[Resolution]: ...
    def visit(self, resolution: Resolution, task: Task) -> Visit: ...
    def look(self) -> float: ...


class Place:
    """A device and its engine, named as rows and warnings name it; "" where a run has no other.

    device: what the cases of a sweep call it, where they could run on any of several like it.
    """

    def __init__(self, engine: Engine, name: str = "", *, device: str = "") -> None:
        self.engine, self.name, self.device, self._own = engine, name, device, device
        self._ceilings: dict[str, Any] | None = None
        self._looked: float | None = None

    def open(self) -> dict[str, Any]:
        """Start it; what it is and has. Raises UsageError, Failure."""
        session = self.engine.open()
        self._own = session["device"]
        return {**session, "device": self.device or self._own}

    def resolve(self, cases: Sequence[Case]) -> list[Resolution]:
        """Each case with its backend here. Raises UsageError."""
        if not self.device:
            return self.engine.resolve(cases)
        found = self.engine.resolve([replace(case, device=self._own) for case in cases])
        return [replace(r, case=replace(r.case, device=self.device)) for r in found]

    def visit(self, resolution: Resolution, task: Task) -> Visit:
        """Measure one case; before the first the ceilings, and the canary now and then. Raises Failure."""
        seconds: dict[str, float] = {}
        ceilings = canary_ms = None
        self.engine.free_bytes()  # a worker that has to be started is so now, and in nobody's seconds but its own
        if task.ceilings and self._ceilings is None:
            started = time.monotonic()
            ceilings = self._ceilings = self.engine.ceilings(task.ceilings)
            seconds["ceilings"] = time.monotonic() - started
        if self._looked is None or time.monotonic() - self._looked >= task.canary_every_s:
            started = time.monotonic()
            canary_ms = self.look()
            seconds["canary"] = time.monotonic() - started
        outcome = self._measure(resolution, task)
        if outcome.ceilings is not None:
            ceilings = self._ceilings = outcome.ceilings
        return Visit(outcome=outcome, ceilings=ceilings, canary_ms=canary_ms, seconds=seconds)

    def look(self) -> float:
        """Milliseconds of the canary, a fixed matrix product."""
        milliseconds = self.engine.canary()
        self._looked = time.monotonic()
        return milliseconds

    def _measure(self, resolution: Resolution, task: Task) -> Outcome:
        """The case's known impossibility, its predicted lack of memory, or its measurement."""
        if resolution.status != "ok":
            return failed(task.metrics[0], resolution.status, resolution.note)
        refused = memory_refusal(resolution, self.engine.free_bytes())
        if refused:
            return failed(task.metrics[0], "oom", refused)
        settings = Settings(budget_s=task.budget_s, ceilings=dict(self._ceilings or {}))
        case = replace(resolution.case, device=self._own) if self.device else resolution.case
        return self.engine.measure(case, metrics=task.metrics, settings=settings, timeout_s=task.timeout_s)


def memory_refusal(resolution: Resolution, free: int) -> str | None:
    """Why the case cannot fit in `free` bytes by its cost model, or None."""
    if resolution.peak_bytes is None or resolution.peak_bytes <= free:
        return None
    return f"needs {resolution.peak_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB free; predicted, not tried"


def failed(metric: str, status: str, note: str) -> Outcome:
    """The outcome of a case that has no figures."""
    return Outcome(readings=[Reading(metric=metric, status=status, note=note)])

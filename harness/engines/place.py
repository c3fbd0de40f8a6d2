"""A place: one device that measures, with its engine and ceilings, under watch. A visit is one case there. No torch.

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
from harness.engines.watch import Taken, Watch
from harness.machine.quiet import Moment, Verdict
from harness.measuring.metrics import Settings
from harness.store.contention import contended
from harness.store.record import Case, Reading


class Engine(Protocol):
    """What measures on one device; harness.engines.local has one."""

    def open(self) -> dict[str, Any]: ...
    def resolve(self, cases: Sequence[Case]) -> list[Resolution]: ...
    def free_bytes(self) -> int: ...
    def ceilings(self, dtypes: Sequence[str]) -> dict[str, Any]: ...
    def canary(self) -> float: ...
    def moment(self) -> Moment: ...
    def examine(self, seconds: float) -> str: ...
    def measure(self, case: Case, *, metrics: Sequence[str], settings: Settings, timeout_s: float) -> Outcome: ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """How the cases of a sweep are measured. ceilings: the dtypes whose ceilings a place measures before its first;
    patience_s: how long a place may wait, in all, for its machine to become quiet."""

    metrics: tuple[str, ...]
    budget_s: float
    timeout_s: float
    ceilings: tuple[str, ...] = ()
    patience_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Visit:
    """What came of one case, and what the place did for itself: new ceilings, its canaries (ms), seconds.

    canaries_ms: (seconds before its end, ms). verdict: on the moment in which the case was measured, None where it has
    no figure; tries: how often it was;
    remarks: what the user should hear.
    """

    outcome: Outcome
    ceilings: dict[str, Any] | None = None
    canaries_ms: tuple[tuple[float, float], ...] = ()
    verdict: Verdict | None = None
    tries: int = 1
    remarks: tuple[str, ...] = ()
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
    def examine(self, seconds: float) -> str: ...


class Place:
    """A device and its engine, named as rows and warnings name it; "" where a run has no other.

    device: what the cases of a sweep call it, where they could run on any of several like it.
    """

    def __init__(self, engine: Engine, name: str = "", *, device: str = "") -> None:
        self.engine, self.name, self.device, self._own = engine, name, device, device
        self._ceilings: dict[str, Any] | None = None
        self._session: dict[str, Any] = {}
        self._watch: Watch | None = None

    def open(self) -> dict[str, Any]:
        """Start it; what it is and has. Raises UsageError, Failure."""
        session = self._session = self.engine.open()
        self._own = session["device"]
        return {**session, "device": self.device or self._own}

    def examine(self, seconds: float) -> str:
        """What is wrong with this machine now, in one line; "" where nothing is. Raises Failure."""
        return self.engine.examine(seconds)

    def resolve(self, cases: Sequence[Case]) -> list[Resolution]:
        """Each case with its backend here. Raises UsageError."""
        if not self.device:
            return self.engine.resolve(cases)
        found = self.engine.resolve([replace(case, device=self._own) for case in cases])
        return [replace(r, case=replace(r.case, device=self.device)) for r in found]

    def visit(self, resolution: Resolution, task: Task) -> Visit:
        """Measure one case, again where the machine was not quiet; before the first the ceilings. Raises Failure."""
        watch = self._watch or Watch.of(self.engine, self._session, patience_s=task.patience_s)
        self._watch = watch
        remarks: list[str] = []
        known, looked, spent = self._ceilings, len(watch.looks), dict(watch.seconds)
        seconds: dict[str, float] = {}
        self.engine.free_bytes()  # a worker that has to be started is so now, and in nobody's seconds but its own
        if task.ceilings and self._ceilings is None:
            remarks += self._take_ceilings(task, watch, seconds)
        taken = self._take(resolution, task, watch)
        outcome, verdict = taken.result, taken.verdict
        if outcome.ceilings is not None:
            remarks.append(_raised(resolution.case, self._ceilings or {}, outcome.ceilings))
            self._ceilings = outcome.ceilings
        if verdict is not None and verdict.disturbed:
            marked = [contended(one, verdict.reason, factor=verdict.factor) for one in outcome.readings]
            outcome = replace(outcome, readings=marked)
        seconds |= {name: watch.seconds[name] - spent[name] for name in spent}
        now = time.monotonic()
        return Visit(
            outcome=outcome, ceilings=None if self._ceilings is known else self._ceilings, verdict=verdict,
            canaries_ms=tuple((now - when, ms) for when, ms in watch.looks[looked:]), tries=taken.tries,
            remarks=tuple(remarks), seconds={name: value for name, value in seconds.items() if value},
        )  # fmt: skip

    def look(self) -> float:
        """Milliseconds of the canary, a fixed matrix product."""
        return self._watch.look() if self._watch else self.engine.canary()

    def _take(self, resolution: Resolution, task: Task, watch: Watch) -> Taken[Outcome]:
        """The case in a quiet moment; what cannot run is not tried, so that nobody looks."""
        refused = self._refused(resolution, task)
        if refused is not None:
            return Taken(result=refused, verdict=None, tries=1)
        return watch.quietly(lambda: self._measure(resolution, task), well=lambda outcome: outcome.status == "ok")

    def _take_ceilings(self, task: Task, watch: Watch, seconds: dict[str, float]) -> list[str]:
        """Measure the ceilings in a quiet moment; what is to be said where there was none."""
        started, beside = time.monotonic(), sum(watch.seconds.values())
        taken = watch.quietly(lambda: self.engine.ceilings(task.ceilings), well=lambda found: True)
        seconds["ceilings"] = time.monotonic() - started - (sum(watch.seconds.values()) - beside)
        self._ceilings = taken.result
        if taken.verdict is None or not taken.verdict.disturbed:
            return []
        return [f"the ceilings may be too low: they were measured while {taken.verdict.reason}"]

    def _refused(self, resolution: Resolution, task: Task) -> Outcome | None:
        """The case's known impossibility or predicted lack of memory; None where it can be tried."""
        if resolution.status != "ok":
            return failed(task.metrics[0], resolution.status, resolution.note)
        refused = memory_refusal(resolution, self.engine.free_bytes())
        return failed(task.metrics[0], "oom", refused) if refused else None

    def _measure(self, resolution: Resolution, task: Task) -> Outcome:
        """The case's measurement."""
        settings = Settings(budget_s=task.budget_s, ceilings=dict(self._ceilings or {}))
        case = replace(resolution.case, device=self._own) if self.device else resolution.case
        return self.engine.measure(case, metrics=task.metrics, settings=settings, timeout_s=task.timeout_s)


def _raised(case: Case, before: dict[str, Any], after: dict[str, Any]) -> str:
    """That a case lay above the roof, and what the ceilings are now that they were taken again."""
    return (
        f"{case} lay above the roof, which is an error of the ceilings: taken again, {_told(before)} → {_told(after)}; "
        "shares of the roof measured before are too high"
    )


def _told(ceilings: dict[str, Any]) -> str:
    rates = [f"{name} {rate:.3g} TFLOP/s" for name, rate in ceilings["matmul_tflops"].items()]
    return ", ".join([f"copy {ceilings['copy_gb_per_s']:.3g} GB/s", *rates])


def memory_refusal(resolution: Resolution, free: int) -> str | None:
    """Why the case cannot fit in `free` bytes by its cost model, or None."""
    if resolution.peak_bytes is None or resolution.peak_bytes <= free:
        return None
    return f"needs {resolution.peak_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB free; predicted, not tried"


def failed(metric: str, status: str, note: str) -> Outcome:
    """The outcome of a case that has no figures."""
    return Outcome(readings=[Reading(metric=metric, status=status, note=note)])

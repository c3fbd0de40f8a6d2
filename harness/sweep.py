"""Runs a sweep: resolve, order, measure case by case, append rows, and leave a complete run folder. No torch.

result = run(sweep, Path("results/mine"), engine=Engine(plugins=[], device="auto"), listener=listener)
"""

from __future__ import annotations

import random
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from harness import stats
from harness.catalogue import Resolution, cached
from harness.engines.local import Engine, Outcome
from harness.errors import UsageError
from harness.record import SCHEMA, Case, Reading, Row
from harness.space import Sweep, expand, read_toml
from harness.store import ENVIRONMENT, SWEEP, Store, StoreFull, read_environment

CANARY_EVERY_S = 5.0
CANARY_TOLERANCE = 0.05
CHECKS = ("numeric_error",)
CEILINGS_FOR = {"roofline_fraction", "flops_rate", "bytes_moved"}  # what is read against the device's ceilings


class Listener(Protocol):
    """Who is told how a sweep goes."""

    def warn(self, text: str) -> None: ...
    def begin(self, total: int, done: int) -> None: ...
    def start(self, case: Case) -> None: ...
    def finish(self, case: Case, readings: Sequence[Reading]) -> None: ...


@dataclass(kw_only=True)
class Result:
    """What a session of a sweep did: its folder, the cases it measured by status, and where its time went."""

    folder: Path
    statuses: Counter[str] = field(default_factory=Counter)
    wall_s: float = 0.0
    measuring_s: float = 0.0


def prepare(sweep: Sweep, engine: Engine) -> tuple[dict[str, Any], list[Resolution], list[str]]:
    """Open the engine and resolve the sweep's cases: the session, each case once, and warnings."""
    session = engine.open()
    cases, warnings = expand(sweep, session["catalogue"], device=session["device"])
    unique = {resolution.case.case_id: resolution for resolution in engine.resolve(cases)}
    return session, list(unique.values()), warnings


def check_names(sweep: Sweep) -> None:
    """Raise UsageError for names that do not exist at once, where the catalogue is known: a worker takes seconds."""
    known = cached(sweep.plugin, compute=False)
    if known:
        expand(sweep, known["attentions"], device="cpu")


def run(sweep: Sweep, folder: Path, *, engine: Engine, listener: Listener, resume: bool = False) -> Result:
    """Measure what the folder lacks of the sweep. Raises StoreError, UsageError and Failure; rows written stay."""
    started = time.monotonic()
    session, resolutions, warnings = prepare(sweep, engine)
    with Store.open(folder, metrics=sweep.metrics, resume=resume, sweep=sweep.to_toml()) as store:
        for text in (*warnings, *store.warnings):
            listener.warn(text)
        todo = [r for r in resolutions if r.case.case_id not in store.done]
        random.Random(sweep.seed).shuffle(todo)
        listener.begin(len(resolutions), len(resolutions) - len(todo))
        journal = _Journal(store, sweep, session, folder)
        result = Result(folder=folder)
        try:
            if todo:
                ceilings = journal.calibrate(engine, todo) if CEILINGS_FOR & set(sweep.metrics) else {}
                for resolution in todo:
                    journal.look(engine, listener)
                    listener.start(resolution.case)
                    outcome = _measure(resolution, sweep, engine, ceilings)
                    store.append(journal.rows(resolution, outcome), outcome.samples)
                    journal.spent(outcome.seconds)
                    result.statuses[outcome.status] += 1
                    listener.finish(resolution.case, outcome.readings)
                journal.look(engine, listener, last=True)
        except BaseException:
            with suppress(StoreFull):  # what ended the sweep is the news, not that its log cannot be written either
                journal.close(time.monotonic() - started)
            raise
        result.wall_s, result.measuring_s = time.monotonic() - started, journal.measuring_s
        journal.close(result.wall_s)
    return result


def stored_sweep(folder: Path) -> Sweep:
    """The sweep that a run folder was made from. Raises UsageError when it has none."""
    return Sweep.parse(read_toml(folder / SWEEP), source=str(folder / SWEEP))


class _Journal:
    """environment.json of a run: what, where, when, how long, and how steady the machine was."""

    def __init__(self, store: Store, sweep: Sweep, session: Mapping[str, Any], folder: Path) -> None:
        self.store, self.session = store, session
        earlier = read_environment(folder)
        self.run_id = earlier.get("run_id") or f"{_now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        self.measuring_s, self._last_look, self._begun = 0.0, 0.0, time.monotonic()
        self._declared = {name: entry["exponents"] for name, entry in session["catalogue"].items()}
        self.document: dict[str, Any] = {
            "schema": SCHEMA,
            "run_id": self.run_id,
            "machine": session["machine"],
            "commit": session["commit"],
            "device": session["device"],
            "order_seed": sweep.seed,
            "declared": {name: exponents for name, exponents in self._declared.items() if exponents},
            "environment": session["environment"],
            "ceilings": earlier.get("ceilings", {}),
            "sessions": earlier.get("sessions", []),
        }
        self.session_log: dict[str, Any] = {"started_utc": f"{_now():%Y-%m-%dT%H:%M:%SZ}", "canary_ms": []}
        self.seconds: Counter[str] = Counter()
        store.write_json(ENVIRONMENT, self.document)

    def calibrate(self, engine: Engine, todo: Sequence[Resolution]) -> dict[str, Any]:
        """The device's ceilings, measured now; kept in environment.json."""
        dtypes = sorted({r.case.dtype for r in todo if r.status == "ok"})
        with self._window("ceilings"):
            ceilings = engine.ceilings(dtypes)
        device = self.session["device"]
        known = self.document["ceilings"].get(device, {"matmul_tflops": {}})
        ceilings["matmul_tflops"] = {**known["matmul_tflops"], **ceilings["matmul_tflops"]}
        self.document["ceilings"][device] = ceilings
        self.store.write_json(ENVIRONMENT, self.document)
        return ceilings

    def look(self, engine: Engine, listener: Listener, *, last: bool = False) -> None:
        """Time the canary now and then; at the end say so if it drifted."""
        if not last and time.monotonic() - self._last_look < CANARY_EVERY_S:
            return
        with self._window("canary"):
            milliseconds = engine.canary()
        self._last_look = time.monotonic()
        looks = self.session_log["canary_ms"]
        looks.append([round(self._last_look - self._begun, 3), milliseconds])
        if last and len(looks) >= 3:
            moved = stats.drift([value for _, value in looks])
            self.session_log["canary_drift"] = moved
            if abs(moved) > CANARY_TOLERANCE:
                listener.warn(
                    f"the machine drifted during this run: a fixed matrix product took {100 * moved:+.1f} % "
                    "at the end against the start; repeat on a quiet machine (harness doctor tells why)"
                )

    def rows(self, resolution: Resolution, outcome: Outcome) -> list[Row]:
        """The rows of a case's readings; the variant's remark goes into each measured latency's note."""
        rows = []
        for reading in outcome.readings:
            if resolution.note and reading is outcome.readings[0] and resolution.note != reading.note:
                reading = replace(reading, note="; ".join(filter(None, [reading.note, resolution.note])))
            rows.append(
                Row.of(
                    resolution.case, reading, run_id=self.run_id, machine=self.session["machine"],
                    commit=self.session["commit"], time_utc=f"{_now():%Y-%m-%dT%H:%M:%SZ}",
                )
            )  # fmt: skip
        return rows

    def spent(self, seconds: Mapping[str, float]) -> None:
        """Add the measured seconds of a case, by metric."""
        self.seconds.update(seconds)
        self.measuring_s += sum(seconds.values())

    def close(self, wall_s: float) -> None:
        """Write how the session went."""
        log = {
            **self.session_log,
            "wall_s": wall_s,
            "measuring_s": self.measuring_s,
            "checking_s": sum(self.seconds[name] for name in CHECKS),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }
        self.document["sessions"].append(log)
        for key in ("wall_s", "measuring_s"):
            self.document[key] = sum(entry[key] for entry in self.document["sessions"])
        self.store.write_json(ENVIRONMENT, self.document)

    @contextmanager
    def _window(self, name: str) -> Iterator[None]:
        """Count the time inside as measuring."""
        started = time.monotonic()
        yield
        self.spent({name: time.monotonic() - started})


def _measure(resolution: Resolution, sweep: Sweep, engine: Engine, ceilings: Mapping[str, Any]) -> Outcome:
    """One case: its known impossibility, its predicted lack of memory, or its measurement."""
    first = sweep.metrics[0]
    if resolution.status != "ok":
        return Outcome(readings=[Reading(metric=first, status=resolution.status, note=resolution.note)])
    refused = memory_refusal(resolution, engine.free_bytes())
    if refused:
        return Outcome(readings=[Reading(metric=first, status="oom", note=refused)])
    settings = {"budget_s": sweep.budget, "ceilings": dict(ceilings)}
    return engine.measure(resolution.case, metrics=sweep.metrics, settings=settings, timeout_s=sweep.timeout)


def memory_refusal(resolution: Resolution, free: int) -> str | None:
    """Why the case cannot fit in `free` bytes by its cost model, or None."""
    if resolution.peak_bytes is None or resolution.peak_bytes <= free:
        return None
    return f"needs {resolution.peak_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB free; predicted, not tried"


def check_same_sweep(stored: Sweep, given: Mapping[str, Any]) -> None:
    """Raise UsageError when a key given for a resumed run differs from the one it was started with."""
    wanted = Sweep.parse({**stored.model_dump(), **given})
    for name in given:
        asked, known = (_text(getattr(sweep, name)) for sweep in (wanted, stored))
        if asked != known and name not in ("budget", "timeout"):
            raise UsageError(
                f"--{name.replace('_', '-')} {asked} differs from the run being resumed, which has {known or 'none'}; "
                "leave it out, or start a new run with another --out"
            )


def _text(value: Any) -> str:
    """A key's value as it would be typed."""
    if isinstance(value, Mapping):
        return ",".join(f"{key}={value[key]}" for key in sorted(value))
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _now() -> datetime:
    return datetime.now(UTC)

"""Runs a sweep: resolve, order, measure case by case, append rows, and leave a complete run folder. No torch.

result = run(sweep, Path("results/mine"), engine=Engine(plugins=[], device="auto"), listener=listener)
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.cases import settings, shapes
from harness.cases.axes import LARGEST_BATCH
from harness.cases.catalogue import Resolution, cached, defaults
from harness.cases.plugins import check_named, check_same, digests
from harness.cases.space import DEFAULTS, Sweep, expand, read_toml
from harness.engines.place import Engine, Task, memory_refusal
from harness.errors import UsageError
from harness.store.record import Case, Reading
from harness.store.runs import SWEEP, Store, StoreFull, StoreLost, read_environment
from harness.sweep import largest
from harness.sweep.crew import Alone, Crew
from harness.sweep.journal import Journal, unfit

__all__ = [
    "Listener", "Result", "check_names", "check_same_sweep", "examined", "memory_refusal", "prepare", "resumed", "run",
    "stored_sweep",
]  # fmt: skip

EXAMINED_S = 2.0  # of a doctor's look before the first case; no longer than one case is sampled
# What is read against the device's ceilings; a latency must not be below what they allow
CEILINGS_FOR = {"latency", "throughput", "roofline_fraction", "flops_rate", "bytes_moved"}


UNLIKE = (
    "unlike machines share this sweep: each case is measured on one of them, and tables and figures keep them apart"
)


class Resolver(Protocol):
    """What knows the variants here and which backend a case takes."""

    def open(self) -> dict[str, Any]: ...
    def resolve(self, cases: Sequence[Case]) -> list[Resolution]: ...


class Listener(Protocol):
    """Who is told how a sweep goes."""

    def warn(self, text: str) -> None: ...
    def begin(self, total: int, done: int, cases: Sequence[Case] = ()) -> None: ...
    def start(self, case: Case) -> None: ...
    def finish(self, case: Case, readings: Sequence[Reading]) -> None: ...


@dataclass(kw_only=True)
class Result:
    """What a session of a sweep did: its folder, the cases it measured by status, and where its time went."""

    folder: Path
    statuses: Counter[str] = field(default_factory=Counter)
    wall_s: float = 0.0
    measuring_s: float = 0.0


def prepare(
    sweep: Sweep, engine: Resolver, *, trier: Any = None
) -> tuple[dict[str, Any], list[Resolution], list[str]]:  # fmt: skip
    """Open the engine and resolve the sweep's cases: the session, each case once, and warnings.

    trier: the engine by which a batch that is to be as large as fits is found; without one it is only predicted.
    """
    session = engine.open()
    cases, warnings = expand(sweep, session["catalogue"], device=session["device"])
    resolutions = largest.settled(cases, engine, trier, timeout_s=sweep.timeout)
    unique = {resolution.case.case_id: resolution for resolution in resolutions}
    return session, list(unique.values()), warnings


def examined_s(sweep: Sweep) -> float:
    """Seconds of a doctor's look at the machine before the first case."""
    return min(EXAMINED_S, max(0.1, sweep.budget))


def examined(engine: Engine, sweep: Sweep, resolutions: Sequence[Resolution]) -> list[str]:
    """The warning that this machine is not fit to measure on now; none where no case would be measured."""
    wanted = any(resolution.status == "ok" for resolution in resolutions)
    text = engine.examine(examined_s(sweep)) if wanted else ""
    return [unfit(text)] if text else []


def check_names(sweep: Sweep) -> None:
    """Raise UsageError for names that do not exist at once, where the catalogue is known: a worker takes seconds."""
    known = cached(sweep.plugin, compute=False)
    if known:
        expand(sweep, known["attentions"], device="cpu")


def run(
    sweep: Sweep, folder: Path, *, engine: Engine | Crew, listener: Listener, resume: bool = False
) -> Result:  # fmt: skip
    """Measure what the folder lacks of the sweep. Raises StoreError, UsageError and Failure; rows written stay.

    A plugin that is edited meanwhile, or since the run was begun, is refused: one run, one implementation.
    """
    started, plugins = time.monotonic(), digests(sweep.plugin)
    crew = engine if isinstance(engine, Crew) else Alone(engine)
    if resume and LARGEST_BATCH in sweep.batch:
        raise UsageError("--batch max is found anew each time, so that its run cannot be resumed: give the batch found")
    session, resolutions, warnings = prepare(sweep, crew, trier=engine)
    with Store.open(folder, metrics=sweep.metrics, resume=resume, sweep=sweep.to_toml()) as store:
        for text in (*warnings, *store.warnings):
            listener.warn(text)
        check_same(read_environment(folder).get("plugins", {}), plugins)
        todo = [r for r in resolutions if r.case.case_id not in store.done]
        random.Random(sweep.seed).shuffle(todo)
        listener.begin(len(resolutions), len(resolutions) - len(todo), [r.case for r in resolutions])
        journal = Journal(store, sweep, session, name=crew.first, plugins=plugins)
        if any(resolution.status == "ok" for resolution in todo):
            for text in journal.examined(crew.examine(examined_s(sweep))):
                listener.warn(text)
        result = Result(folder=folder)
        try:
            for served in crew.serve(todo, _task(sweep, todo), listener):
                if served.name not in journal.places and journal.join(served.name, served.session):
                    listener.warn(UNLIKE)
                outcome = served.visit.outcome
                check_same(plugins, digests(sweep.plugin))  # a worker that was started again has loaded it again
                store.append(journal.rows(served), outcome.samples)
                for text in journal.note(served):
                    listener.warn(text)
                result.statuses[outcome.status] += 1
                listener.finish(served.resolution.case, outcome.readings)
            if todo:
                journal.look(crew.looks())
                for text in journal.summary():
                    listener.warn(text)
        except BaseException:
            with suppress(
                StoreFull, StoreLost
            ):  # what ended the sweep is the news, not that its log cannot be written either
                journal.close(time.monotonic() - started)
            raise
        result.wall_s, result.measuring_s = time.monotonic() - started, journal.measuring_s
        journal.close(result.wall_s)
    return result


def stored_sweep(folder: Path) -> Sweep:
    """The sweep that a run folder was made from. Raises UsageError when it has none."""
    document = read_toml(folder / SWEEP, of_run=True)
    return Sweep.parse(shapes.stated(document, DEFAULTS), source=str(folder / SWEEP))


def resumed(folder: Path, given: Mapping[str, Any]) -> Sweep:
    """The sweep with which to go on: the folder's, with what may change as given. Raises UsageError for what may not.

    Its plugins run only where `given` names them: whoever made the folder may have written their names into it.
    """
    stored = stored_sweep(folder)
    check_same_sweep(stored, given)
    check_named(stored.plugin, given, source=f"the run in {folder}")
    wanted = stored.model_copy(update={k: v for k, v in Sweep.parse(given) if k in given})
    check_same(read_environment(folder).get("plugins", {}), digests(wanted.plugin))
    return wanted


def check_same_sweep(stored: Sweep, given: Mapping[str, Any]) -> None:
    """Raise UsageError when a key given for a resumed run differs from the one it was started with."""
    wanted = Sweep.parse({**stored.model_dump(), **given})
    found = cached([], compute=False) if "set" in given else None
    usual = defaults(found["attentions"]) if found else {}
    for name in given:
        asked, known = (_text(getattr(sweep, name)) for sweep in (wanted, stored))
        if name == "set":  # an option at its default is the same case as one left out
            asked, known = (_text(settings.stated(sweep.set, usual)) for sweep in (wanted, stored))
        if name == "plugin":  # a file may have moved: its name and its digest tell which it is
            asked, known = (",".join(sorted(Path(p).name for p in sweep.plugin)) for sweep in (wanted, stored))
        if asked != known and name not in ("budget", "timeout", "patience"):
            raise UsageError(
                f"--{name.replace('_', '-')} {asked} differs from the run being resumed, which has {known or 'none'}; "
                "leave it out, or start a new run with another --out"
            )


def _task(sweep: Sweep, todo: Sequence[Resolution]) -> Task:
    """How its cases are measured; with ceilings where a figure is read against them."""
    dtypes = sorted({r.case.dtype for r in todo if r.status == "ok"}) if CEILINGS_FOR & set(sweep.metrics) else []
    return Task(
        metrics=sweep.metrics, budget_s=sweep.budget, timeout_s=sweep.timeout, ceilings=tuple(dtypes),
        patience_s=sweep.patience,
    )  # fmt: skip


def _text(value: Any) -> str:
    """A key's value as it would be typed."""
    if isinstance(value, Mapping):
        return ",".join(f"{key}={settings.written(value[key])}" for key in sorted(value))
    words = value if isinstance(value, tuple) else (value,)
    return ",".join(str(word).lower() if isinstance(word, bool) else str(word) for word in words)

"""The gate from end to end: cases, deterministic checks on both sides, paired timing, and what came out.

report = run(Options(given={}, against="origin/main"), listener)
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.check import baseline, complexity, deterministic, revisions, suite
from harness.check.deterministic import Facts
from harness.check.pairs import SECONDS, THREADS, Rounds
from harness.check.probing import Prober
from harness.check.suite import Planned
from harness.check.timing import judge
from harness.check.verdict import Finding, accept
from harness.errors import Failure, UsageError, unknown
from harness.store.record import Case


class Listener(Protocol):
    """Who is told how the gate goes."""

    def say(self, text: str) -> None: ...
    def step(self, done: int, total: int, what: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked: the sweep's keys, what to compare with, how many pairs, and which variants may change."""

    given: Mapping[str, Any]
    against: str | None = None
    baseline: Path | None = None
    update: Path | None = None
    history: Path | None = None
    pairs: int = 12
    seconds: float = SECONDS
    threads: int = THREADS
    quick: bool = False
    accept: Sequence[str] = ()
    base_python: str | None = None


@dataclass(kw_only=True)
class Report:
    """What came out: findings, remarks on how it was measured, and what was compared where."""

    base: str
    head: str
    machine: str = ""
    device: str = ""
    pairs: int = 0
    wall_s: float = 0.0
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    updated: str = ""


def run(options: Options, listener: Listener) -> Report:
    """Run the gate. Raises UsageError, NothingToCompare and Failure where no verdict can be given at all."""
    started = time.monotonic()
    if not (options.against or options.baseline or options.update):
        raise UsageError(
            "nothing to compare with: give --against REV (a branch or commit), --baseline FILE, or --update FILE"
        )
    plugins = list(suite.sweeps(options.given, ())[0].plugin)
    stored = baseline.read(options.baseline) if options.baseline else None
    with ExitStack() as stack:
        report = _compare(options, plugins, stored, stack, listener)
    report.findings = accept(report.findings, options.accept)
    report.wall_s = time.monotonic() - started
    return report


def _compare(
    options: Options, plugins: Sequence[str], stored: baseline.Stored | None, stack: ExitStack, listener: Listener
) -> Report:
    base: revisions.Side | None = None
    if options.against:
        root = revisions.repository()
        commit = revisions.resolve(root, options.against)
        files = revisions.differing(root, commit, options.against)
        base, head = stack.enter_context(revisions.sides(root, commit, plugins=plugins, python=options.base_python))
        if not revisions.measured(root, files) and not base.rebuilt:
            return _unchanged(options, base, head, files)
    else:
        head = stack.enter_context(revisions.here(plugins=plugins))
    report = Report(
        base=base.commit if base else (stored.commit if stored else ""), head=head.commit,
        notes=list(base.notes) if base else [],
    )  # fmt: skip
    return _Measurement(options, base, head, stored, report, stack, listener).report()


class _Measurement:
    """One run of the gate with its workers."""

    def __init__(
        self, options: Options, base: revisions.Side | None, head: revisions.Side, stored: baseline.Stored | None,
        report: Report, stack: ExitStack, listener: Listener,
    ) -> None:  # fmt: skip
        self.options, self.base, self.head, self.stored = options, base, head, stored
        self.listener, self._report = listener, report
        first = suite.sweeps(options.given, ())[0]
        self.device, self.timeout, self.seed = first.device, first.timeout, first.seed
        if stored and not base and "device" not in options.given:
            self.device = stored.cases[0].device
        # A worker dies with the thread that started it: base's has one thread for as long as it may be started again.
        self.beside = stack.enter_context(ThreadPoolExecutor(max_workers=1))
        self.head_prober = stack.enter_context(Prober(head, device=self.device, timeout=self.timeout))
        self.base_prober = stack.enter_context(Prober(base, device=self.device, timeout=self.timeout)) if base else None
        self.head_facts: dict[str, Facts] = {}
        self.medians: dict[str, list[float]] = {}

    def report(self) -> Report:
        """Plan, compare, time, update."""
        planned, session = self._plan()
        findings = [finding for place, case in enumerate(planned) for finding in self._look(place, case, len(planned))]
        findings += self._contracts(planned, session)
        self.head_prober.engine.stop()
        if self.base_prober:
            self.base_prober.engine.stop()
        broken = {f.case for f in findings if f.check == "presence" and f.verdict != "ok"}
        timed = {case.name: case for case in planned if case.name not in broken and case.head}
        findings += self._time(timed, session)
        self._report.findings = findings
        self._report.machine, self._report.device = session["machine"], session["device"]
        measured = [
            (case.head.case, self.head_facts[case.name], self.medians.get(case.name, []))
            for case in planned
            if case.head and case.name in self.head_facts and self.head_facts[case.name].status == "ok"
        ]
        if self.options.update:
            self._update(self.options.update, measured, session)
        if self.options.history and measured:
            baseline.append(self.options.history, measured, machine=session["machine"], commit=self.head.commit)
            self._report.notes.append(f"{self.options.history}: {len(measured)} cases of {self.head.commit} were added")
        return self._report

    def _plan(self) -> tuple[list[Planned], Mapping[str, Any]]:
        self.listener.say("starting the workers")
        opening = self.beside.submit(self.base_prober.open) if self.base_prober else None
        session = self.head_prober.open()
        self.device = session["device"]
        head = (self.head_prober.engine, session)
        base = (self.base_prober.engine, opening.result()) if self.base_prober and opening else None
        self._check_accepted([session["catalogue"], base[1]["catalogue"] if base else {}])
        if self.stored and not base and not any(axis in self.options.given for axis in suite.CASE_AXES):
            return suite.stored(self.stored.cases, head), session
        variants = self.head_prober.own_variants + (self.base_prober.own_variants if self.base_prober else [])
        planned, warnings = suite.plan(suite.sweeps(self.options.given, list(dict.fromkeys(variants))), head, base)
        self._report.notes += warnings
        return planned, session

    def _check_accepted(self, catalogues: Sequence[Mapping[str, Any]]) -> None:
        """Raise UsageError for a name in --accept that neither side nor the baseline has."""
        stored = [case.attention for case in self.stored.cases] if self.stored else []
        known = sorted({name for catalogue in catalogues for name in catalogue} | set(stored))
        for name in self.options.accept:
            if name not in known:
                raise UsageError(f"--accept: {unknown('variant', name, known)}")

    def _look(self, place: int, case: Planned, total: int) -> list[Finding]:
        """Tiers 0 and 1 of one case."""
        self.listener.step(place + 1, total, f"deterministic checks: {case.name}")
        asked = self.beside.submit(self.base_prober.facts, case.base) if self.base_prober else None
        head = self.head_prober.facts(case.head)
        if head is not None:
            self.head_facts[case.name] = head
        findings: list[Finding] = []
        if asked:
            findings += deterministic.compare(case.name, base=asked.result(), head=head)
        if self.stored:
            known = self.stored.facts.get((case.head.case if case.head else case.asked).case_id)
            findings += deterministic.compare(case.name, base=known, head=head)
        if not self.base_prober and not self.stored:
            findings += deterministic.alone(case.name, head)
        return findings

    def _contracts(self, planned: Sequence[Planned], session: Mapping[str, Any]) -> list[Finding]:
        """The complexity contract of each variant, backend and phase that works at head, once."""
        done: dict[tuple[Any, ...], Case] = {}
        for case in planned:
            if case.head and case.name in self.head_facts and self.head_facts[case.name].status == "ok":
                found = case.head.case
                done.setdefault((found.label, found.phase, found.dtype, *complexity.sizes(found)), found)
        findings = []
        for place, case in enumerate(done.values()):
            self.listener.step(place + 1, len(done), f"complexity contract: {case.label} {case.phase}")
            findings += self.head_prober.complexity(case, session["catalogue"][case.attention]["exponents"])
        return findings

    def _time(self, timed: Mapping[str, Planned], session: Mapping[str, Any]) -> list[Finding]:
        """Tier 2."""
        if self.options.quick or not timed:
            if self.options.quick:
                self._report.notes.append("--quick: nothing was timed")
            return []
        rounds = Rounds(
            base=self.base or self.head, head=self.head, device=self.device, seconds=self.options.seconds,
            threads=self.options.threads, timeout=self.timeout,
            progress=lambda done, total: self.listener.step(done, total, "timing in processes"),
        )  # fmt: skip
        if self.base:
            both = {name: case for name, case in timed.items() if case.base and case.base.status == "ok"}
            forms = {name: (c.base.case, c.head.case) for name, c in both.items() if c.base and c.head}
            self._report.pairs = self.options.pairs
            found, self.medians = judge(forms, rounds, pairs=self.options.pairs, seed=self.seed)
            return found
        stale = self.stored and self.stored.machine != session["machine"]
        if self.stored and stale and not self.options.update:
            reason = (
                f"times were stored on {self.stored.machine} and this is {session['machine']}: times of other machines "
                "are not compared"
            )
            return [
                Finding(
                    case=name, tier=2, check="latency", verdict="not comparable", reason=reason,
                    variant=case.asked.attention,
                )
                for name, case in timed.items()
            ]  # fmt: skip
        self.medians = rounds.alone({name: case.head.case for name, case in timed.items() if case.head})
        if not self.stored or stale:
            return []
        return [
            baseline.compare_timing(name, self.stored.timings.get(case.head.case.case_id), self.medians[name])
            for name, case in timed.items()
            if case.head
        ]

    def _update(
        self, path: Path, measured: Sequence[tuple[Case, Facts, Sequence[float]]], session: Mapping[str, Any]
    ) -> None:  # fmt: skip
        """Write the baseline, unless anything failed, regressed or is missing."""
        bad = [f for f in accept(self._report.findings, self.options.accept) if f.verdict in baseline.REFUSED]
        if bad:
            self._report.notes.append(f"{path} was not written: {bad[0].case} {bad[0].check} is {bad[0].verdict}")
            return
        if not measured:
            raise Failure(f"{path} was not written: no case could be measured")
        rows = baseline.rows_of(measured, machine=session["machine"], commit=self.head.commit)
        baseline.write(path, rows)
        self._report.updated = str(path)


def _unchanged(
    options: Options, base: revisions.Side, head: revisions.Side, files: Sequence[str]
) -> Report:  # fmt: skip
    """No file that a measurement depends on differs: said, and not measured."""
    if options.update:
        raise UsageError("nothing that is measured differs, so nothing was measured; --update without --against writes")
    names = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
    reason = f"nothing that is measured differs; only {names}"
    finding = Finding(case="(every case)", tier=0, check="code", verdict="ok", reason=reason)
    return Report(base=base.commit, head=head.commit, findings=[finding], notes=list(base.notes))

"""Asks a worker of one side for what is deterministic about a case; whatever happens becomes Facts.

with Prober(side, device="cpu") as prober:
    session = prober.open()
    facts = prober.facts(resolution)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from harness.cases.catalogue import Resolution
from harness.check import complexity
from harness.check.deterministic import Facts
from harness.check.pairs import check_origin, open_engine
from harness.check.revisions import Side
from harness.check.verdict import Finding
from harness.engines.local import START_TIMEOUT_S, Engine, WorkerLost
from harness.errors import Failure, NothingToCompare, UsageError
from harness.measuring.requests import Answer, CaseFailure, Definition, Load, Probe, Probed, Request, Toolchain
from harness.store.record import Case


class Prober:
    """One worker of a side for the untimed checks; a crash costs the case and brings a fresh worker."""

    def __init__(self, side: Side, *, device: str, timeout: float) -> None:
        self.side, self.device, self.timeout = side, device, timeout
        self.engine = Engine(plugins=side.plugins, device=device, python=side.python, path=side.path)
        self.toolchain = ""
        self.own_variants: list[str] = []

    def __enter__(self) -> Prober:
        return self

    def __exit__(self, *failure: object) -> None:
        self.engine.stop()

    def open(self) -> dict[str, Any]:
        """The session: device, catalogue, environment, machine. Raises Failure when it measures other code."""
        try:
            session = self.engine.open()
            self.device = session["device"]
            loaded = self.engine.ask(Load(plugins=tuple(self.side.plugins)), START_TIMEOUT_S)
            self.toolchain = self.engine.ask(Toolchain(device=self.device), START_TIMEOUT_S)
        except WorkerLost as lost:
            raise Failure(f"the worker of {self.side.name} does not start: {lost.note}") from None
        except UsageError as error:
            if self.side.name == "base":  # what head mends must not be refused for what base was
                raise NothingToCompare(
                    f"base at {self.side.commit} does not load, so nothing can be compared: {error}"
                ) from None
            raise UsageError(f"{self.side.name}: {error}") from None
        check_origin(self.side, loaded.origin)
        self.own_variants = list(loaded.variants)
        return session

    def facts(self, resolution: Resolution | None) -> Facts | None:
        """The deterministic figures of a case, or why there are none; None where the side does not have the case."""
        if resolution is None:
            return None
        case = resolution.case
        if resolution.status != "ok":
            return Facts(status=resolution.status, note=resolution.note, dtype=case.dtype)
        answer = self._ask(Probe(case=case))
        if isinstance(answer, CaseFailure):
            return Facts(status=answer.status, note=answer.note, dtype=case.dtype)
        described = self._ask(Definition(case=case))
        if isinstance(described, CaseFailure):
            return Facts(status="error", note=f"its reference fails: {described.note}", dtype=case.dtype)
        readings = {reading.metric: reading for reading in answer.readings}
        return Facts(
            dtype=case.dtype, readings=readings, definition=asdict(described), toolchain=self.toolchain
        )  # fmt: skip

    def complexity(self, case: Case, declared: Mapping[str, float] | None) -> list[Finding]:
        """The contract of a case's variant: over n first, and over m only where growth in n is as declared."""
        points: list[complexity.Point] = []
        findings: list[Finding] = []
        todo = complexity.sizes(case) if declared else []
        for place, size in enumerate(todo):
            answer = self._ask(Probe(case=size, scaling=True))
            points.append(_point(size, answer))
            findings = complexity.judge(str(case), declared, points, at_most=case.problem.causal)
            over_n_done = place + 1 == len(complexity.N)
            if findings and any(f.verdict == "failed" or (over_n_done and f.verdict != "ok") for f in findings):
                return findings
        return findings or complexity.judge(str(case), declared, points, at_most=case.problem.causal)

    def _ask(self, request: Request[Answer]) -> Answer | CaseFailure:
        try:
            return self.engine.ask(request, self.timeout)
        except (WorkerLost, Failure) as error:
            self.engine.stop(kill=True)
            self.engine = open_engine(self.side, self.device)
            return CaseFailure(status=getattr(error, "status", "error"), note=str(error))


def _point(size: Case, answer: Probed | CaseFailure) -> complexity.Point:
    """What the contract reads of one size."""
    if isinstance(answer, CaseFailure):
        return complexity.Point(n=size.n, m=size.m, flops=None, peak=None, note=answer.note)
    found = {reading.metric: reading for reading in answer.readings}
    flops, peak = found["flops"], found["peak_memory"]
    return complexity.Point(n=size.n, m=size.m, flops=flops.value, peak=peak.value, note=flops.note)

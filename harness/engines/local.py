"""Cases in a worker process on this machine: one process for many cases, a fresh one after every failure. No torch.

with Engine(plugins=[], device="auto") as engine:
    session = engine.open()                  # device, catalogue, environment, machine, commit
    outcome = engine.measure(case, metrics=("latency",), settings=Settings(), timeout_s=60)
with Crew(Devices(plugins=[], devices=["cuda:0", "cuda:1"])) as crew: ...      # a worker on each of several
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from harness.cases.catalogue import Resolution
from harness.engines.outcome import Outcome, WorkerLost
from harness.engines.process import Process
from harness.errors import Failure, UsageError, reason
from harness.machine.quiet import Moment
from harness.measuring import requests, wire
from harness.measuring.metrics import Settings
from harness.measuring.requests import LOST, Answer
from harness.store.record import Case, Reading

__all__ = ["START_TIMEOUT_S", "Engine", "Outcome", "WorkerLost"]

START_TIMEOUT_S = 300.0
MOST_STARTS = 3  # tries to start a worker again


class Engine:
    """One worker process, started when first needed, by `python` and with `path` before this checkout's own."""

    def __init__(
        self, *, plugins: Sequence[str], device: str, python: str = sys.executable, path: Sequence[str] = ()
    ) -> None:
        self.plugins, self.device, self.python, self.path = list(plugins), device, python, list(path)
        self._process: Process | None = None
        self._used = self._abandoned = self._known = False
        self._starting_s = 0.0  # since the last case
        self.restarts = 0

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, failure: object, *rest: object) -> None:
        self.stop(kill=failure is not None)

    def open(self) -> dict[str, Any]:
        """Start the worker; its device, catalogue, environment, machine name and commit. Raises UsageError, Failure."""
        session = self._first(requests.Open(plugins=tuple(self.plugins), device=self.device))
        self.device, self._known = session.device, True
        return vars(session)

    def resolve(self, cases: Sequence[Case]) -> list[Resolution]:
        """Each case with its backend. Raises UsageError for a name, option or size that does not exist."""
        return list(self._request(requests.Resolve(cases=tuple(cases))))

    def free_bytes(self) -> int:
        """Memory free on the device now."""
        return self._request(requests.Free(device=self.device))

    def ceilings(self, dtypes: Sequence[str]) -> dict[str, Any]:
        """Copy bandwidth and matrix rates of the device."""
        return self._request(requests.Ceilings(device=self.device, dtypes=tuple(dtypes)))

    def canary(self) -> float:
        """Milliseconds of the fixed matrix product."""
        return self._request(requests.Canary(device=self.device))

    def moment(self) -> Moment:
        """The machine's counters now, with the GPU's where the worker lives that can tell them."""
        alive = self.device.startswith("cuda") and self._process is not None
        return Moment.take(gpu=self._request(requests.LookAtGpu(device=self.device)) if alive else None)

    def examine(self, seconds: float) -> str:
        """What doctor finds wrong with this machine in so many seconds, in one line."""
        return self._request(requests.Examine(device=self.device, seconds=seconds))

    def measure(self, case: Case, *, metrics: Sequence[str], settings: Settings, timeout_s: float) -> Outcome:
        """Measure one case; whatever happens to it becomes an Outcome, and a failure ends the worker.

        A crash or a CUDA error in a worker that had served other cases may be what one of them left behind: the case
        gets a second try in a fresh one.
        """
        self._ensure()
        request = requests.Measure(case=case, metrics=tuple(metrics), settings=settings)
        used, self._used = self._used, True
        begun = time.monotonic()
        try:
            answer = self._ask(request, timeout_s)
        except WorkerLost as lost:
            self.stop(kill=True)
            if used and lost.status == "error":
                return self.measure(case, metrics=metrics, settings=settings, timeout_s=timeout_s)
            return _failed(metrics, lost.status, lost.note, self._spent({LOST: time.monotonic() - begun}))
        except Failure as failure:  # the worker could not even answer: its own fault, not the case's
            self.stop(kill=True)
            return _failed(metrics, "error", str(failure), self._spent({LOST: time.monotonic() - begun}))
        if isinstance(answer, requests.CaseFailure):
            again = used and answer.status == "error" and "CUDA error" in answer.note
            if again or not answer.fit:
                self.stop(kill=True)
            if again:
                return self.measure(case, metrics=metrics, settings=settings, timeout_s=timeout_s)
            return _failed(metrics, answer.status, answer.note, self._spent(answer.seconds))
        return Outcome(
            readings=list(answer.readings), samples=dict(answer.samples), seconds=self._spent(answer.seconds),
            ceilings=answer.ceilings,
        )  # fmt: skip

    def fits(self, case: Case, *, timeout_s: float) -> str:
        """Why the case cannot be run, or an empty text: it is called, and a failure ends the worker."""
        self._ensure()
        try:
            answer = self._ask(requests.Try(case=case), timeout_s)
        except WorkerLost as lost:
            self.stop(kill=True)
            return f"{lost.status}: {lost.note}"
        if answer is None:
            return ""
        if not answer.fit:
            self.stop(kill=True)
        return f"{answer.status}: {answer.note}"

    def _spent(self, seconds: Mapping[str, float]) -> dict[str, float]:
        """A case's seconds, with those that starting workers took since the last one."""
        starting, self._starting_s = self._starting_s, 0.0
        return {**seconds, requests.START: starting} if starting else dict(seconds)

    def pair(
        self, cases: tuple[Case, Case], *, budget_s: float, timeout_s: float
    ) -> requests.Turns | requests.PairFailure:
        """Latency samples of two cases taken in turns, or whose failure it was. Raises WorkerLost."""
        self._ensure()
        answer = self.ask(requests.Pair(cases=cases, budget_s=budget_s), timeout_s)
        if isinstance(answer, requests.PairFailure):
            self.stop(kill=True)
        return answer

    def begin(self) -> None:
        """Start the worker without waiting until it answers."""
        if self._process is None:
            self._start()

    def ask(self, request: requests.Request[Answer], timeout_s: float) -> Answer:
        """One operation of the worker, which is started if there is none. Raises WorkerLost after ending it."""
        try:
            return self._ask(request, timeout_s)
        except WorkerLost:
            self.stop(kill=True)
            raise

    def stop(self, *, kill: bool = False) -> None:
        """End the worker: by closing its stdin, or at once with every process it has started."""
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        process.end()

    def abandon(self) -> None:
        """From another thread: end the worker, and let whoever waits for it start no other. `stop` is still due."""
        self._abandoned = True
        process = self._process
        if process is not None:
            process.kill()

    def _ensure(self) -> None:
        if self._process is not None and self._process.has_ended:  # it died between two cases
            self.stop(kill=True)
        for left in reversed(range(MOST_STARTS if self._process is None else 0)):
            self.restarts += 1
            begun = time.monotonic()
            try:
                if self._known:
                    self._first(requests.Reopen(plugins=tuple(self.plugins), device=self.device))
                else:
                    self.open()
                return
            except Failure:  # the kernel's out-of-memory killer, say, took it before it could answer
                if not left:
                    raise
            finally:
                self._starting_s += time.monotonic() - begun

    def _first(self, request: requests.Request[Answer]) -> Answer:
        """What a new worker is asked first. Raises Failure where it does not start."""
        try:
            return self._ask(request, START_TIMEOUT_S)
        except WorkerLost as lost:
            self.stop(kill=True)
            raise Failure(f"the measuring process failed as it started: {lost.note}") from None

    def _request(self, request: requests.Request[Answer]) -> Answer:
        """Ask, once more in a fresh worker if it fails: what a case left behind in it may be the reason."""
        for last in (False, True):
            self._ensure()
            try:
                return self._ask(request, START_TIMEOUT_S)
            except (WorkerLost, Failure) as failure:
                self.stop(kill=True)
                if last and isinstance(failure, WorkerLost):
                    name = wire.operation(type(request))
                    raise Failure(f"the measuring process failed in '{name}': {failure.note}") from None
                if last:
                    raise
        raise AssertionError("unreachable")

    def _ask(self, request: requests.Request[Answer], timeout_s: float) -> Answer:
        if self._process is None:
            try:
                self._start()
            except OSError as error:
                raise WorkerLost("error", f"it could not be started: {reason(error)}") from None
        process = self._process
        assert process is not None
        process.write(wire.encode(request))
        line = process.line(timeout_s)
        try:
            return wire.decode_answer(request, line)
        except UsageError:  # which is a ValueError too
            raise
        except ValueError:
            raise WorkerLost("error", "the worker's answer was not readable: something wrote into it") from None

    def _start(self) -> None:
        if self._abandoned:
            raise WorkerLost("error", "the sweep is over")
        self._used = False
        self._process = Process(self.python, self.path)
        if self._abandoned:  # while it was being started
            self.abandon()


def _failed(metrics: Sequence[str], status: str, note: str, seconds: dict[str, float]) -> Outcome:
    return Outcome(readings=[Reading(metric=metrics[0], status=status, note=note)], seconds=seconds)

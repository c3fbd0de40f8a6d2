"""Cases that several worker processes share, each a rank with a part of the tokens. No torch.

with Engine(plugins=[], device="cpu", ranks=4) as engine:        # four workers of this machine
    session = engine.open()
    outcome = engine.measure(shared(case, 4), metrics=METRICS, settings=Settings(), timeout_s=60)

Under torchrun the workers are one of each of its processes (harness.engines.torchrun). A rank that dies, or a case that
fails in one of them, ends all workers: the case is a row with the reason, and the next one starts fresh ones.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from harness.cases.catalogue import Resolution
from harness.cases.sharing import alone, shared
from harness.engines.local import START_TIMEOUT_S, Outcome, WorkerLost
from harness.engines.local import Engine as Worker
from harness.engines.place import failed, memory_refusal
from harness.errors import Failure, UsageError
from harness.machine import system
from harness.machine.quiet import Moment
from harness.measuring import requests
from harness.measuring.metrics import Settings
from harness.measuring.requests import Answer, CaseFailure, Measured, MeetingFile, MeetingStore, Request
from harness.store.record import Case

Asked = TypeVar("Asked")
FEW = 16  # processes that any machine may start
CONSEQUENCES = ("lost the others", "closed by peer", "reset by peer", "pair closure", "the sweep is over")
PATIENCE_S = 86400.0  # of a collective: the case's own limit is shorter, and a lost rank ends it at once
LEAVE_S = 20.0  # for the other ranks, once one has failed or died


class Seat(Protocol):
    """Where one rank's worker is: a process here, or one beside another process of torchrun."""

    def ask(self, request: Request[Answer], timeout_s: float) -> Answer: ...  # raises WorkerLost, Failure, UsageError
    def abandon(self) -> None: ...  # from another thread: end the worker for good
    def stop(self, *, kill: bool = False) -> None: ...


class Source(Protocol):
    """Starts the seats of a generation: one fresh worker a rank, and where these meet."""

    ranks: int
    whole_machine: bool  # the ranks share the cores of one machine: each gets its part of them

    def seats(self) -> list[Seat]: ...
    def meeting(self, generation: int) -> MeetingFile | MeetingStore: ...
    def device(self, rank: int, kind: str) -> str: ...
    def close(self) -> None: ...


class Here:
    """Ranks as worker processes of this machine."""

    whole_machine = True

    def __init__(self, *, plugins: Sequence[str], ranks: int) -> None:
        most = max(FEW, 2 * len(system.affinity()))
        if ranks > most:
            raise UsageError(
                f"--sequence-parallel {ranks} would start {ranks} processes here; at most {most} on this machine, or "
                f"start them with torchrun on several"
            )
        self.plugins, self.ranks = list(plugins), ranks
        self._folder: Path | None = None

    def seats(self) -> list[Seat]:
        return [Worker(plugins=self.plugins, device="cpu") for _ in range(self.ranks)]

    def meeting(self, generation: int) -> MeetingFile:
        self._folder = self._folder or Path(tempfile.mkdtemp(prefix="ranks-"))
        return MeetingFile(file=str(self._folder / f"meeting-{generation}"))

    def device(self, rank: int, kind: str) -> str:
        return f"cuda:{rank}" if kind == "cuda" else kind

    def close(self) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


class Engine:
    """Measures a case on all ranks of a source together; a sweep uses it as it uses the local engine."""

    def __init__(self, source: Source, *, plugins: Sequence[str], device: str) -> None:
        self.source, self.plugins, self.asked = source, list(plugins), device
        if ":" in device:
            raise UsageError(
                f"--device {device} is one GPU; --sequence-parallel {source.ranks} takes one for each rank: "
                "--device cuda, and CUDA_VISIBLE_DEVICES to choose them"
            )
        self._pool = ThreadPoolExecutor(source.ranks)
        self._seats: list[Seat] = []
        self._devices: list[str] = []
        self._generations = itertools.count()
        self._session: dict[str, Any] = {}
        self._peaks: dict[str, int | None] = {}
        self._backends: dict[str, str] = {}

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, failure: object, *rest: object) -> None:
        self._end(kill=failure is not None)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.source.close()

    def open(self) -> dict[str, Any]:
        """Start a worker for each rank; the session of rank 0. Raises UsageError, Failure."""
        self._request(lambda: None)
        here = self.source.ranks if self.source.whole_machine else 1
        return {**self._session, "processes": here}

    def resolve(self, cases: Sequence[Case]) -> list[Resolution]:
        """Each case as the ranks share it. What it needs is what its parts need, on a CPU all of them together."""
        ranks = self.source.ranks
        parts = [replace(case, n=-(-case.n // ranks)) for case in cases]
        found = []
        for case, single, part in zip(cases, self._resolve(cases), self._resolve(parts), strict=True):
            mine = shared(single.case, ranks) if single.status == "ok" else replace(single.case, backend="")
            together = ranks if self._devices[0] == "cpu" else 1
            peak = None if part.peak_bytes is None else part.peak_bytes * together
            self._peaks[mine.case_id], self._backends[mine.case_id] = single.peak_bytes, single.case.backend
            found.append(replace(single, case=mine, peak_bytes=peak))
            assert case.n == mine.n
        return found

    def free_bytes(self) -> int:
        """Of the rank that has least."""
        return min(
            self._request(lambda: self._all(START_TIMEOUT_S, lambda rank: requests.Free(device=self._devices[rank])))
        )

    def ceilings(self, dtypes: Sequence[str]) -> dict[str, Any]:
        """Of rank 0's device."""
        return self._request(lambda: self._first(requests.Ceilings(device=self._devices[0], dtypes=tuple(dtypes))))

    def canary(self) -> float:
        """Milliseconds of the fixed matrix product on rank 0."""
        return self._request(lambda: self._first(requests.Canary(device=self._devices[0])))

    def moment(self) -> Moment:
        """The counters of this process' machine now."""
        return Moment.take()

    def examine(self, seconds: float) -> str:
        """What doctor finds wrong on rank 0's device in so many seconds, in one line."""
        return self._request(lambda: self._first(requests.Examine(device=self._devices[0], seconds=seconds)))

    def measure(self, case: Case, *, metrics: Sequence[str], settings: Settings, timeout_s: float) -> Outcome:
        """Measure one case on all ranks; whatever happens to one of them becomes an Outcome and ends them all."""
        plain = alone(case, self._backends[case.case_id])
        try:
            whole = Resolution(case=plain, peak_bytes=self._peaks[case.case_id])
            refused = memory_refusal(whole, self.free_bytes())
            answers = self._all(
                timeout_s,
                lambda rank: requests.MeasurePart(
                    case=plain, device=self._devices[rank], metrics=tuple(metrics), settings=settings,
                    one_process=refused,
                ),
            )  # fmt: skip
        except WorkerLost as lost:
            self._end(kill=True)
            return failed(metrics[0], lost.status, lost.note)
        except Failure as failure:
            self._end(kill=True)
            return failed(metrics[0], "error", str(failure))
        first = answers[0]
        assert isinstance(first, Measured)  # a failure has been raised
        return Outcome(readings=list(first.readings), samples=dict(first.samples), seconds=dict(first.seconds))

    def _resolve(self, cases: Sequence[Case]) -> list[Resolution]:
        return list(self._request(lambda: self._first(requests.Resolve(cases=tuple(cases)))))

    def _first(self, request: Request[Answer]) -> Answer:
        return self._seats[0].ask(request, START_TIMEOUT_S)

    def _request(self, asking: Callable[[], Asked]) -> Asked:
        """What is asked between cases; once more of fresh workers if it fails. Raises Failure, UsageError."""
        for last in (False, True):
            try:
                self._ready()
                return asking()
            except (WorkerLost, Failure) as failure:
                self._end(kill=True)
                if last:
                    raise Failure(f"the measuring processes failed: {failure}") from None
        raise AssertionError("unreachable")

    def _ready(self) -> None:
        if not self._seats:
            self._start()

    def _start(self) -> None:
        """Fresh workers that have joined one group."""
        self._seats = self.source.seats()
        count = self.source.ranks
        if self.source.whole_machine and "OMP_NUM_THREADS" not in os.environ:
            threads = max(1, len(system.affinity()) // count)
            self._all(START_TIMEOUT_S, lambda rank: requests.Threads(threads=threads))
        kind = self.asked
        if kind == "auto":  # rank 0 tells which kind of device there is
            kind = self._first(requests.Open(plugins=tuple(self.plugins), device="auto")).device.partition(":")[0]
        devices = [self.source.device(rank, kind) for rank in range(count)]
        sessions = self._all(
            START_TIMEOUT_S, lambda rank: requests.Open(plugins=tuple(self.plugins), device=devices[rank])
        )  # fmt: skip
        self._session, self._devices = vars(sessions[0]), devices
        meeting = self.source.meeting(next(self._generations))
        self._all(
            START_TIMEOUT_S,
            lambda rank: requests.Join(
                rank=rank, ranks=count, meeting=meeting, device=devices[rank], patience_s=PATIENCE_S
            ),
        )  # fmt: skip

    def _all(self, timeout_s: float, request: Callable[[int], Request[Answer]]) -> list[Answer]:
        """Every rank's answer to its request. The first that fails ends all: WorkerLost, Failure or UsageError."""
        self._ready()
        asked = {self._pool.submit(seat.ask, request(rank), timeout_s): rank for rank, seat in enumerate(self._seats)}
        waiting = set(asked)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            if any(_problem(future) for future in done):
                break
        if waiting:  # give them time to tell what they know, then no more
            wait(waiting, timeout=LEAVE_S)
            for seat in self._seats:
                seat.abandon()
        problems = [(rank, problem) for future, rank in asked.items() if (problem := _problem(future))]
        if problems:
            raise _worst(problems)
        return [future.result() for future in asked]

    def _end(self, *, kill: bool) -> None:
        seats, self._seats = self._seats, []
        for seat in seats:
            seat.stop(kill=kill)


def _problem(future: Future[Any]) -> BaseException | None:
    """What went wrong on a rank, a case's failure included; None while it works or when it is well."""
    if not future.done():
        return None
    if error := future.exception():
        return error
    answer = future.result()
    return WorkerLost(answer.status, answer.note) if isinstance(answer, CaseFailure) else None


def _worst(problems: Sequence[tuple[int, BaseException]]) -> BaseException:
    """The problem that is a cause: a rank that lost the others, or was ended for their sake, has none of its own."""

    rank, problem = min(problems, key=lambda entry: any(sign in str(entry[1]) for sign in CONSEQUENCES))
    if isinstance(problem, WorkerLost):
        return WorkerLost(problem.status, f"rank {rank}: {problem.note}")
    return problem

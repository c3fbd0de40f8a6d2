"""Who measures a sweep's cases: one place in turn, or several side by side that come and go. No torch.

    with Crew(Devices(plugins=[], devices=["cuda:0", "cuda:1"]), warn=print) as crew:
        session = crew.open()                                  # the first place that answers decides the backends
        for served in crew.serve(crew.resolve(cases), task, listener): ...

Each place of a crew has a thread, which waits for its answers; all else happens in the caller's. A case whose place was
lost is given to another; what a lost place would still have answered is never heard, so no case is answered twice.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from harness.cases.catalogue import Resolution
from harness.engines.place import Engine, Lost, Place, Seat, Task, Visit, failed
from harness.errors import Failure, UsageError
from harness.store.record import Case

MOST_TRIES = 3
MOST_LOST = 1  # cases in a row that one place may lose
POLL_S = 1.0
LEAVE_S = 10.0
SLOW_S = 20.0
SHORTEST_S = 0.2  # of an examination


class Source(Protocol):
    """Where a crew's places come from.

    whole: a sweep needs all that are there when it begins; patience_s: how long one without a place waits for another.
    """

    whole: bool
    patience_s: float

    def arrivals(self) -> list[Seat]: ...  # that no earlier call has told of
    def leave(self, seat: Seat) -> None: ...  # end it, so that the thread that waits for it hears Lost or Failure
    def lost(self, seat: Seat) -> None: ...  # the same, of one that failed
    def close(self) -> None: ...


class Told(Protocol):
    """Who hears which case is begun."""

    def start(self, case: Case) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Served:
    """One case with what came of it, the place that it came from and that place's session."""

    name: str
    session: dict[str, Any]
    resolution: Resolution
    visit: Visit


class Alone:
    """One place, in the caller's thread."""

    def __init__(self, engine: Engine) -> None:
        self.place = Place(engine)
        self.session: dict[str, Any] = {}
        self.first = ""

    def open(self) -> dict[str, Any]:
        self.session = self.place.open()
        return self.session

    def resolve(self, cases: Sequence[Case]) -> list[Resolution]:
        return self.place.resolve(cases)

    def serve(self, todo: Sequence[Resolution], task: Task, told: Told) -> Iterator[Served]:
        """Each case in turn. One whose worker cannot be started is a row; Failure when the next one's cannot."""
        lost = 0
        for resolution in todo:
            told.start(resolution.case)
            try:
                visit, lost = self.place.visit(resolution, task), 0
            except Failure as failure:
                lost += 1
                if lost > MOST_LOST:
                    raise
                visit = _refused(replace(resolution, status="error", note=str(failure)), task)
            yield Served(name="", session=self.session, resolution=resolution, visit=visit)

    def looks(self) -> Iterator[tuple[str, float]]:
        """The canary of each place, once more."""
        with suppress(Failure):  # it has done its cases; that it fails now harms nobody
            yield "", self.place.look()

    def examine(self, seconds: float) -> Iterator[tuple[str, str]]:
        """What is wrong at each place now, "" where nothing is."""
        yield "", self.place.examine(seconds)


class _Hand:
    """A place with its thread: it does one job at a time and puts what came of it into `answers`."""

    def __init__(self, seat: Seat, answers: queue.Queue[tuple[_Hand, Any]]) -> None:
        self.seat, self._answers = seat, answers
        self.session: dict[str, Any] | None = None
        self.able: dict[str, Resolution] | None = None
        self.case: Resolution | None = None
        self.busy, self.begun, self.late = False, time.monotonic(), False
        self._jobs: queue.Queue[Callable[[], Any] | None] = queue.Queue()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def do(self, job: Callable[[], Any] | None, case: Resolution | None = None) -> None:
        """Begin a job; None ends the thread."""
        self.busy, self.case = True, case
        self._jobs.put(job)

    def _work(self) -> None:
        for job in iter(self._jobs.get, None):
            try:
                answer = job()
            except BaseException as error:  # the caller's thread raises it or knows what to do
                answer = error
            self._answers.put((self, answer))


class Crew:
    """Places of a source, side by side. Every case is answered once, however many places come and go meanwhile."""

    def __init__(self, source: Source, *, warn: Callable[[str], None]) -> None:
        self.source, self.warn, self.first = source, warn, ""
        self._answers: queue.Queue[tuple[_Hand, Any]] = queue.Queue()
        self._hands: list[_Hand] = []
        self._looked = self._alone_since = 0.0
        self._reason = "none came"

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *failure: object) -> None:
        for hand in self._hands:
            self.source.leave(hand.seat)
            hand.do(None)
        for hand in self._hands:
            hand.thread.join(LEAVE_S)
        self.source.close()

    def open(self) -> dict[str, Any]:
        """Start the places; the session of the first that answers. Raises UsageError, Failure."""
        self._alone_since = time.monotonic()
        while True:
            self._recruit()
            hand, answer = self._next()
            if hand is not None and isinstance(answer, UsageError):
                raise answer
            if hand is not None:
                self._settled(hand, answer)
            ready = self._ready()
            if ready and (not self.source.whole or len(ready) == len(self._hands)):
                self.first = ready[0].seat.name
                return ready[0].session or {}

    def resolve(self, cases: Sequence[Case]) -> list[Resolution]:
        """Each case with the backend that the first place takes. Raises UsageError; Failure where it is gone again."""
        try:
            return self._ready()[0].seat.resolve(cases)
        except Lost as lost:
            raise Failure(f"{self.first} was lost as the sweep began: {lost}") from None

    def serve(self, todo: Sequence[Resolution], task: Task, told: Told) -> Iterator[Served]:
        """Each case once, in the order in which they are done. Raises Failure when no place is left."""
        session = self._ready()[0].session or {}
        waiting = deque(resolution for resolution in todo if resolution.status == "ok")
        cases = [resolution.case for resolution in waiting]
        for resolution in todo:
            if resolution.status != "ok":
                yield Served(name=self.first, session=session, resolution=resolution, visit=_refused(resolution, task))
        tries: Counter[str] = Counter()
        while waiting or any(hand.case for hand in self._hands):
            if waiting:
                self._recruit()
            for hand in [hand for hand in self._hands if hand.session and not hand.busy]:
                self._employ(hand, waiting, cases, task, told)
            if waiting and self._ready() and not any(hand.busy for hand in self._hands):  # nobody can run what is left
                hand, resolution = self._ready()[0], waiting.popleft()
                assert hand.able is not None
                yield _served(hand, hand.able[resolution.case.case_id], _refused, task)
                continue
            hand, answer = self._next(len(waiting))
            if hand is None:
                continue
            held = hand.case
            settled = self._settled(hand, answer)
            if held is None:
                continue
            if settled:
                yield Served(name=hand.seat.name, session=hand.session or {}, resolution=held, visit=answer)
                continue
            tries[held.case.case_id] += 1
            if tries[held.case.case_id] < MOST_TRIES:
                waiting.append(held)
                continue
            note = f"its place was lost {MOST_TRIES} times as it ran; the last time: {answer}"
            yield _served(hand, replace(held, status="error", note=note), _refused, task)

    def looks(self) -> Iterator[tuple[str, float]]:
        """The canary of each place that has nothing to do, once more."""
        for hand in self._ready():
            try:
                yield hand.seat.name, hand.seat.look()
            except (Lost, Failure):  # it has done its cases; that it is gone now harms nobody
                continue

    def examine(self, seconds: float) -> Iterator[tuple[str, str]]:
        """What is wrong at each place that is here by now, "" where nothing is: one after the other, in `seconds`."""
        hands = self._ready()
        for hand in hands:
            try:
                yield hand.seat.name, hand.seat.examine(max(SHORTEST_S, seconds / len(hands)))
            except (Lost, Failure):  # whoever gives it a case will hear
                continue

    def _ready(self) -> list[_Hand]:
        return [hand for hand in self._hands if hand.session and not hand.busy]

    def _recruit(self) -> None:
        """Look for new places now and then, and open them."""
        if self._hands and time.monotonic() - self._looked < POLL_S:
            return
        self._looked = time.monotonic()
        for seat in self.source.arrivals():
            hand = _Hand(seat, self._answers)
            self._hands.append(hand)
            hand.do(seat.open)

    def _employ(
        self, hand: _Hand, waiting: deque[Resolution], cases: list[Case], task: Task, told: Told
    ) -> None:  # fmt: skip
        """Give a place the first case that it can run; before its first, ask it which those are."""
        if not waiting:
            return
        if hand.able is None:
            hand.do(lambda: dict(zip((c.case_id for c in cases), hand.seat.resolve(cases), strict=True)))
            return
        for resolution in waiting:
            mine = hand.able[resolution.case.case_id]
            if mine.status == "ok":
                waiting.remove(resolution)
                told.start(mine.case)
                hand.do(partial(hand.seat.visit, mine, task), case=mine)
                return

    def _next(self, missing: int = 0) -> tuple[_Hand | None, Any]:
        """The next answer of any place, (None, None) when there is none yet. Raises Failure when nobody is left."""
        if self._hands:
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > self.source.patience_s:
            cases = f"; {missing} cases are missing" if missing else ""
            raise Failure(f"no place is left to measure on, the last reason: {self._reason}{cases}")
        for hand in self._hands:
            if hand.session is None and not hand.late and time.monotonic() - hand.begun > SLOW_S:
                hand.late = True
                self.warn(f"still waiting for {hand.seat.name} to start; other work may have it")
        try:
            return self._answers.get(timeout=POLL_S)
        except queue.Empty:
            return None, None

    def _settled(self, hand: _Hand, answer: Any) -> bool:
        """Take in an answer: True where it is one, False where the place is given up; any fault of ours is raised."""
        hand.busy, hand.case = False, None
        if isinstance(answer, Lost | Failure | UsageError):
            self._hands.remove(hand)
            self.source.lost(hand.seat)
            hand.do(None)
            self._reason = f"{hand.seat.name}: {answer}"
            if hand.session is not None or not isinstance(answer, Lost):  # else it was gone before it had begun
                self.warn(f"lost {hand.seat.name} ({answer}); what it held goes to another")
            return False
        if isinstance(answer, BaseException):
            raise answer
        if hand.session is None:
            hand.session = answer
        elif isinstance(answer, dict):
            hand.able = answer
        return True


def _served(hand: _Hand, resolution: Resolution, visit: Callable[[Resolution, Task], Visit], task: Task) -> Served:
    return Served(
        name=hand.seat.name, session=hand.session or {}, resolution=resolution, visit=visit(resolution, task)
    )  # fmt: skip


def _refused(resolution: Resolution, task: Task) -> Visit:
    return Visit(outcome=failed(task.metrics[0], resolution.status, resolution.note))

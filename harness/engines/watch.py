"""Measuring between looks at the machine, and again where it was not quiet. No torch.

    watch = Watch.of(engine, engine.open(), patience_s=20)
    taken = watch.quietly(lambda: engine.measure(...), well=lambda outcome: outcome.status == "ok")
    taken.result, taken.verdict, taken.tries

What is disturbed is taken again at once, up to RETAKES times, with a wait for quiet before each: of half the patience
that the run has left, and no longer than WORTH times what the try took. Once patience is spent it is taken again once
only; without any, never.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from harness.machine.quiet import Moment, Span, Verdict, judge
from harness.machine.shown import Shown

RETAKES = 3
WORTH = 10.0
POLL_S = 0.25
SPENT_S = 0.5  # of patience: too little to wait for anything
FRESH_S = 1.0  # how old the last look may be to stand for the machine before a case

WAITING, AGAIN = "waiting", "again"  # for quiet, and what was taken again because of the want of it

T = TypeVar("T")


class Looked(Protocol):
    """What a watch asks of an engine."""

    def canary(self) -> float: ...
    def moment(self) -> Moment: ...


@dataclass(frozen=True, kw_only=True)
class Taken(Generic[T]):
    """What was measured, the verdict on the moment in which it was, and how often it was tried; verdict None where it
    failed, so that there is no figure to doubt."""

    result: T
    verdict: Verdict | None
    tries: int


class Watch:
    """Looks at one device's machine.

    looks: (when, ms) of every canary; seconds: what looking, waiting and tries that were not kept took.
    """

    def __init__(self, engine: Looked, shown: Shown, *, threads: int, cuda: bool, patience_s: float) -> None:
        self.engine, self.shown, self.threads, self.cuda = engine, shown, threads, cuda
        self.patient, self.left_s = patience_s > 0, patience_s
        self.looks: list[tuple[float, float]] = []
        self.seconds = {"canary": 0.0, WAITING: 0.0, AGAIN: 0.0}

    @classmethod
    def of(cls, engine: Looked, session: Mapping[str, Any], *, patience_s: float) -> Watch:
        """A watch of the machine and device that an engine's session tells."""
        known, device = (session.get("environment") or {}).get("torch") or {}, session.get("device", "")
        threads = (known.get("threads") or 1) * session.get("processes", 1)
        shown = Shown.open(session.get("machine", ""), device)
        return cls(engine, shown, threads=threads, cuda=device.startswith("cuda"), patience_s=patience_s)

    def look(self) -> float:
        """Milliseconds of the canary now."""
        started = time.monotonic()
        milliseconds = self.engine.canary()
        self.looks.append((time.monotonic(), milliseconds))
        self.seconds["canary"] += self.looks[-1][0] - started
        self.shown.tell(milliseconds)
        return milliseconds

    def quietly(self, call: Callable[[], T], *, well: Callable[[T], bool]) -> Taken[T]:
        """The call's result in a quiet moment, or that of the least disturbed try. One that is not well ends it."""
        tries: list[tuple[T, Verdict, float]] = []
        count = 0
        while True:
            count += 1
            begun, looking = time.monotonic(), self.seconds["canary"]
            result, verdict = self._once(call, well)
            took = time.monotonic() - begun
            itself = took - (self.seconds["canary"] - looking)
            if verdict is None and not tries:
                return Taken(result=result, verdict=None, tries=count)
            if verdict is None:
                self.seconds[AGAIN] += itself
                break
            tries.append((result, verdict, itself))
            if not verdict.disturbed or not self._again(count, took):
                break
        kept = tries[-1]
        if kept[1].disturbed:
            kept = min(tries, key=lambda entry: (entry[1].factor, entry[1].span.others or 0.0))
        self.seconds[AGAIN] += sum(itself for _, _, itself in tries) - kept[2]
        return Taken(result=kept[0], verdict=kept[1], tries=count)

    def _once(self, call: Callable[[], T], well: Callable[[T], bool]) -> tuple[T, Verdict | None]:
        """One try between two looks; the last one stands for the first where it is fresh."""
        fresh = self.looks and time.monotonic() - self.looks[-1][0] < FRESH_S
        first = self.looks[-1][1] if fresh else self.look()
        before = self.engine.moment()
        result = call()
        if not well(result):
            return result, None
        span = Span.of(before, self.engine.moment())
        return result, self._judge(span, first, self.look())

    def _again(self, tries: int, took: float) -> bool:
        """Whether to try once more, after a wait for quiet; took: seconds of the last try."""
        if not self.patient or tries > RETAKES:
            return False
        if self.left_s < SPENT_S:
            return tries == 1
        started, looking = time.monotonic(), self.seconds["canary"]
        end = started + min(self.left_s / 2, WORTH * took)
        while True:
            before = self.engine.moment()
            time.sleep(POLL_S)
            span = Span.of(before, self.engine.moment())
            if not self._judge(span, self.look()).disturbed or time.monotonic() >= end:
                break
        waited = time.monotonic() - started
        self.left_s -= waited
        self.seconds[WAITING] += waited - (self.seconds["canary"] - looking)
        return True

    def _judge(self, span: Span, *canaries_ms: float) -> Verdict:
        return judge(span, canaries_ms=canaries_ms, best_ms=self.shown.ms, threads=self.threads, cuda=self.cuda)

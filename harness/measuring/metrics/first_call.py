"""first_call (ms): the very first call of this shape in a fresh or reused process, compilation and tuning included."""

from __future__ import annotations

import time
from collections.abc import Iterator

from harness.measuring.metrics import Settings
from harness.measuring.subject import Subject
from harness.store.record import Reading

PROVIDES = ("first_call",)
NEEDS = ()


def measure(subject: Subject, readings: dict[str, Reading], settings: Settings) -> Iterator[Reading]:
    """Time one call that nothing has warmed up; for `backward`, its forward pass is part of the first call."""
    subject.synchronise()
    started = time.perf_counter_ns()
    subject.call()
    subject.synchronise()
    yield Reading(metric="first_call", value=(time.perf_counter_ns() - started) / 1e6, samples=1)

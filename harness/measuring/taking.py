"""One case measured from its request to its answer, or two in turns; lives in the worker, and imports torch.

answer = measure(requests.Measure(case=case, metrics=("latency",), settings=settings))      # or a CaseFailure

A failure is an answer, and says whether the process may have another case after it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from harness.cases import catalogue
from harness.measuring import metrics, requests
from harness.measuring.failing import Footing, classify, limit_memory
from harness.measuring.metrics import latency
from harness.measuring.metrics.error import check_again
from harness.measuring.subject import Subject
from harness.measuring.truth import KEPT
from harness.store.record import Case, Reading


def measure(request: requests.Measure) -> requests.Measured | requests.CaseFailure:
    """All readings of one case, its raw samples, and the seconds spent in each metric."""
    footing, taken = Footing(request.case.device), _Taken(request)
    try:
        taken.measure()
    except Exception as error:
        status, text = classify(error)
        note, seconds = f"in {taken.stage}: {text}", taken.seconds
    else:
        return taken.measured()
    del taken
    return requests.CaseFailure(status=status, note=note, seconds=seconds, fit=footing.holds(status))


class _Taken:
    """What has been measured of a case so far, and at which stage it is."""

    def __init__(self, request: requests.Measure) -> None:
        self.request, self.settings = request, request.settings
        self.given = json.dumps(request.settings.ceilings)
        self.readings: dict[str, Reading] = {}
        self.seconds: dict[str, float] = {}
        self.stage = ""

    def measure(self) -> None:
        """Every metric that is wanted or needed. Raises what the case raises."""
        with self._at(requests.SET_UP):
            subject = _made(self.request.case)
            planned = metrics.plan(self.request.metrics)
            if self.settings.ceilings and any("latency" in metric.PROVIDES for metric in planned):
                planned = metrics.plan([*self.request.metrics, "roofline_fraction"])  # no latency without its floor
        for metric in planned:
            with self._at(metric.PROVIDES[0]):
                for reading in metric.measure(subject, self.readings, self.settings):
                    self.readings[reading.metric] = finite(reading)
            if "latency" in metric.PROVIDES:
                with self._at("the check after the timing", to="numeric_error"):
                    check_again(subject)

    def measured(self) -> requests.Measured:
        """The answer, once nothing has failed."""
        wanted = self.request.metrics
        return requests.Measured(
            readings=tuple(self.readings[name] for name in wanted),
            samples={name: values for name, values in self.settings.samples.items() if name in wanted},
            seconds=self.seconds,
            ceilings=self.settings.ceilings if json.dumps(self.settings.ceilings) != self.given else None,
        )

    @contextmanager
    def _at(self, stage: str, *, to: str = "") -> Iterator[None]:
        """Be at a stage; its seconds go to the metric of that name, or of `to`."""
        self.stage, started = stage, time.perf_counter()
        try:
            yield
        finally:
            name = to or stage
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def attempt(request: requests.Try) -> requests.CaseFailure | None:
    """Call a case beside what a call leaves, such as an optimizer's state, and check it, or tell why it fails."""
    footing = Footing(request.case.device)
    try:
        subject = _made(request.case)
        subject.call()
        for metric in metrics.plan(["numeric_error"]):
            list(metric.measure(subject, {}, metrics.Settings()))
        subject.synchronise()
        return None
    except Exception as error:
        status, text = classify(error)
    return requests.CaseFailure(status=status, note=text, fit=footing.holds(status))


def pair(request: requests.Pair) -> requests.Turns | requests.PairFailure:
    """Latency samples of two cases in turns, A B B A, once both are right and warm; or whose failure it was, 0 or 1."""
    subjects: list[Subject] = []
    which: int | None = None
    try:
        _make_room(*request.cases)
        for case in request.cases:
            which = len(subjects)
            subject = Subject(case)
            for metric in metrics.plan(["numeric_error"]):
                list(metric.measure(subject, {}, metrics.Settings()))
            subjects.append(subject)
        which = None
        a, b = latency.in_turns(*subjects, budget_s=request.budget_s)
        for place, subject in enumerate(subjects):
            which = place
            check_again(subject)
        return requests.Turns(a=a, b=b)
    except Exception as error:
        status, text = classify(error)
        return requests.PairFailure(status=status, note=text, which=which)


def _made(case: Case) -> Subject:
    """The case ready to be called, with room for it."""
    _make_room(case)
    return Subject(case)


def _make_room(*cases: Case) -> None:
    """Bound what the process may take, and forget truths where cases that are there together need their memory."""
    device, peak = cases[0].device, sum(catalogue.resolve(case).peak_bytes or 0 for case in cases)
    limit_memory(device, peak=peak)
    KEPT.make_room(device, peak)


def finite(reading: Reading) -> Reading:
    """The reading, or an error in its place where its value is NaN or infinite."""
    if reading.value is None or math.isfinite(reading.value):
        return reading
    return Reading(metric=reading.metric, status="error", note=f"the value is {reading.value}")

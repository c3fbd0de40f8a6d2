"""latency (ms): the median of one call; host (ms): what the host takes to enqueue it; throughput from latency.

CPU: the wall clock around calls. CUDA: the device's own time, by harness.measuring.held. Throughput is tokens/s, img/s
of a model of images. Sampling stops on evidence: after `min_samples`, when the relative half-width of the median's 95 %
interval is under `precision` (converged), or no longer shrinks (stable), or the case's time budget is spent (budget).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from harness import stats
from harness.machine import allocator
from harness.measuring import cuda
from harness.measuring.clocks import Clocks
from harness.measuring.held import Call, Device, HostIsLate, Stopwatch
from harness.measuring.metrics import Settings
from harness.measuring.subject import Subject
from harness.store.record import Reading

PROVIDES = ("latency", "host", "throughput")
NEEDS = ("first_call", "numeric_error")

WARM_UP_CALLS, WARM_UP_S = 3, 0.5
FEWEST_SAMPLES, OVERDRAWN = 3, 5
SHORTEST_SAMPLE_S = 2e-4
LOOK_EVERY_S = 0.1
ON_A_CPU = "on a CPU the host does the work itself: its time is the latency"


class Watch(Protocol):
    """Samples of one subject, warmed up."""

    def sample(self, count: int) -> list[float]:
        """So many, in ms. Raises HostIsLate."""
        ...

    def fall_back(self, why: str) -> None:
        """Take the wall clock from here on."""
        ...

    def notes(self) -> list[str]:
        """How they were taken."""
        ...

    def host(self) -> list[float] | str:
        """What enqueuing took in the same samples, in ms; or why that cannot be told."""
        ...


def measure(subject: Subject, readings: dict[str, Reading], settings: Settings) -> Iterator[Reading]:
    """Sample calls until there is evidence enough."""
    yield from readings_of(watch_of(subject), settings, items=subject.case.b * _items(subject))


def readings_of(watch: Watch, settings: Settings, *, items: int) -> Iterator[Reading]:
    """The readings of this file for what a watch samples, `items` tokens or images a call."""
    try:
        samples, stopped = until_evidence(watch.sample, settings)
    except HostIsLate as late:
        watch.fall_back(f"the host fell behind ({late})")
        samples, stopped = until_evidence(watch.sample, settings)
    host, notes = watch.host(), watch.notes()
    summary = stats.summarise(samples)
    settings.samples["latency"] = samples
    if not isinstance(host, str) and (enqueuing := stats.summarise(host).median) > summary.median:
        notes.append(f"host-bound when called eagerly: the host takes {enqueuing:.3g} ms")
    notes.append(how_it_ended(stopped, summary))
    latency = _reading("latency", summary, "; ".join(notes))
    yield latency
    if isinstance(host, str):
        yield Reading(metric="host", status="unsupported", note=host)
    else:
        settings.samples["host"] = host
        yield _reading("host", stats.summarise(host), "enqueuing one call, the stream held meanwhile")
    yield latency.per(1e3 * items, metric="throughput")


def how_it_ended(stopped: str, summary: stats.Summary) -> str:
    """`stopped: budget at ±7.2 %`, and that the interval is less sure than 95 % where samples are too few for it."""
    text = f"stopped: {stopped} at ±{100 * summary.half_width:.2g} %"
    if summary.samples >= stats.FEWEST_FOR_95:
        return text
    return f"{text}, the range of {summary.samples} samples: too few for a 95 % interval"


def until_evidence(
    sample: Callable[[int], list[float]], settings: Settings, *, clock: Callable[[], float] = time.perf_counter
) -> tuple[list[float], str]:
    """Samples taken in batches, and why they ended: converged, stable or budget, looked at between batches.

    A call so slow that min_samples would take OVERDRAWN times the budget gets FEWEST_SAMPLES: its row shows how few.
    """
    samples: list[float] = []
    widths: list[tuple[int, float]] = []
    batch, started = 1, clock()
    while (elapsed := clock() - started) < settings.budget_s or len(samples) < settings.min_samples:
        if elapsed > OVERDRAWN * settings.budget_s and len(samples) >= FEWEST_SAMPLES:
            break
        before = clock()
        samples += sample(batch)
        batch = max(1, min(1000, round(batch * LOOK_EVERY_S / max(clock() - before, 1e-9))))
        if len(samples) < settings.min_samples:
            continue
        widths.append((len(samples), stats.summarise(samples).half_width))
        if widths[-1][1] < settings.precision:
            return samples, "converged"
        if _stable(widths):
            return samples, "stable"
    return samples, "budget"


def sampler(subject: Subject) -> Callable[[int], list[float]]:
    """A function that takes so many samples in ms, warmed up: for whoever times several processes in turns."""
    return watch_of(subject).sample


def watch_of(subject: Subject) -> Watch:
    """A warmed-up watch of the subject's device."""
    if subject.device.type == "cuda":
        return DeviceWatch(subject, cuda.CudaDevice.of(subject.device), Clocks(cuda.gpu_of(subject.device)))
    return CpuWatch(subject)


def in_turns(a: Subject, b: Subject, *, budget_s: float) -> tuple[list[float], list[float]]:
    """Samples in ms of two subjects in the order A B B A, until the median ratio is within 0.5 % or time is spent."""
    return watched_in_turns(watch_of(a), watch_of(b), budget_s=budget_s)


def watched_in_turns(a: Watch, b: Watch, *, budget_s: float) -> tuple[list[float], list[float]]:
    """The same of two watches: both by the wall clock where one of them has to use it."""
    for one, other in ((a, b), (b, a)):
        if isinstance(one, DeviceWatch) and one.stopwatch.wall:
            other.fall_back(one.stopwatch.wall)
    try:
        return _in_turns(a, b, budget_s)
    except HostIsLate as late:
        for watch in (a, b):
            watch.fall_back(f"the host fell behind ({late})")
        return _in_turns(a, b, budget_s)


def _in_turns(a: Watch, b: Watch, budget_s: float) -> tuple[list[float], list[float]]:
    times_a: list[float] = []
    times_b: list[float] = []
    started = time.perf_counter()
    while time.perf_counter() - started < 2 * budget_s or len(times_a) < FEWEST_SAMPLES * 2:
        times_a += a.sample(1)
        times_b += b.sample(2)
        times_a += a.sample(1)
        if len(times_a) >= 20 and len(times_a) % 20 == 0:
            low, high = stats.median_interval([x / y for x, y in zip(times_a, times_b, strict=True)])
            if high / low < 1.01:
                break
    return times_a, times_b


def _stable(widths: list[tuple[int, float]]) -> bool:
    """Whether doubling the samples no longer narrows the interval, from 200 samples on: the machine drifts."""
    count, width = widths[-1]
    earlier = [w for c, w in widths if c <= count / 2]
    return count >= 200 and bool(earlier) and width > 0.95 * earlier[-1]


class CpuWatch:
    """The wall clock around one call, or around a block of calls where one is too short for it."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        started, calls = time.perf_counter(), 0
        while calls < WARM_UP_CALLS and (calls == 0 or time.perf_counter() - started < WARM_UP_S):
            subject.call()
            calls += 1
        each = (time.perf_counter() - started) / calls
        self.repeats = 1 if subject.needs_graph else max(1, math.ceil(SHORTEST_SAMPLE_S / each))

    def sample(self, count: int) -> list[float]:
        return [self._once() if self.repeats == 1 else self._block() for _ in range(count)]

    def fall_back(self, why: str) -> None:
        """It is the wall clock already."""

    def notes(self) -> list[str]:
        return [*([f"{self.repeats} calls a sample"] if self.repeats > 1 else []), *filter(None, [allocator.remark()])]

    def host(self) -> str:
        return ON_A_CPU

    def _once(self) -> float:
        state = self.subject.prepare()
        started = time.perf_counter_ns()
        self.subject.run(state)
        return (time.perf_counter_ns() - started) / 1e6

    def _block(self) -> float:
        started = time.perf_counter_ns()
        for _ in range(self.repeats):
            self.subject.run(None)
        return (time.perf_counter_ns() - started) / 1e6 / self.repeats


class DeviceWatch:
    """The device's own time, with its clock beside the samples."""

    def __init__(self, subject: Call, device: Device, clocks: Clocks) -> None:
        self.stopwatch, self.clocks = Stopwatch(subject, device), clocks
        self.stopwatch.settle()

    def sample(self, count: int) -> list[float]:
        self.clocks.look()
        samples = self.stopwatch.sample(count)
        self.clocks.look()
        return samples

    def fall_back(self, why: str) -> None:
        self.stopwatch.use_wall_clock(why)

    def notes(self) -> list[str]:
        wall = self.stopwatch.wall
        return [f"wall clock: {wall}" if wall else "device time", *self.clocks.notes()]

    def host(self) -> list[float] | str:
        wall = self.stopwatch.wall
        return f"not apart from the device's time: {wall}" if wall else self.stopwatch.host_ms


def _items(subject: Subject) -> int:
    return subject.case.n if subject.case.is_of_tokens else 1


def _reading(metric: str, summary: stats.Summary, note: str) -> Reading:
    return Reading(
        metric=metric, value=summary.median, ci_low=summary.ci_low, ci_high=summary.ci_high,
        p20=summary.p20, p80=summary.p80, samples=summary.samples, note=note,
    )  # fmt: skip

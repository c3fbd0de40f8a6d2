"""latency (ms): the median of one call, and throughput (tokens/s; img/s of a whole model) from it.

Sampling stops on evidence: after `min_samples`, when the relative half-width of the median's 95 % interval is under
`precision` (converged), or no longer shrinks (stable), or the case's time budget is spent (budget).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import cache

import torch

from harness import stats
from harness.measuring.metrics import Settings
from harness.measuring.subject import Subject
from harness.store.record import Reading

PROVIDES = ("latency", "throughput")
NEEDS = ("first_call", "numeric_error")

WARM_UP_CALLS, WARM_UP_S = 3, 0.5
FEWEST_SAMPLES, OVERDRAWN = 3, 5
SHORTEST_SAMPLE_S = 2e-4
GRAPH_BELOW_S = 1e-4
LOOK_EVERY_S = 0.1


def measure(subject: Subject, readings: dict[str, Reading], settings: Settings) -> Iterator[Reading]:
    """Sample calls until there is evidence enough."""
    sample, notes = _sampler(subject)
    samples, stopped = until_evidence(sample, settings)
    summary = stats.summarise(samples)
    settings.samples["latency"] = samples
    notes.append(how_it_ended(stopped, summary))
    latency = Reading(
        metric="latency", value=summary.median, ci_low=summary.ci_low, ci_high=summary.ci_high,
        p20=summary.p20, p80=summary.p80, samples=summary.samples, note="; ".join(notes),
    )  # fmt: skip
    yield latency
    items = subject.case.b * (1 if subject.case.scope == "model" else subject.case.n)
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
    return _sampler(subject)[0]


def in_turns(a: Subject, b: Subject, *, budget_s: float) -> tuple[list[float], list[float]]:
    """Samples in ms of two subjects in the order A B B A, until the median ratio is within 0.5 % or time is spent."""
    (sample_a, _), (sample_b, _) = _sampler(a), _sampler(b)
    times_a: list[float] = []
    times_b: list[float] = []
    started = time.perf_counter()
    while time.perf_counter() - started < 2 * budget_s or len(times_a) < FEWEST_SAMPLES * 2:
        times_a += sample_a(1)
        times_b += sample_b(2)
        times_a += sample_a(1)
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


def _sampler(subject: Subject) -> tuple[Callable[[int], list[float]], list[str]]:
    """A function that takes `count` samples in ms, warmed up, and notes on how it takes them."""
    if subject.device.type == "cuda":
        return _cuda_sampler(subject)
    started, calls = time.perf_counter(), 0
    while calls < WARM_UP_CALLS and (calls == 0 or time.perf_counter() - started < WARM_UP_S):
        subject.call()
        calls += 1
    each = (time.perf_counter() - started) / calls
    repeats = 1 if subject.needs_graph else max(1, math.ceil(SHORTEST_SAMPLE_S / each))
    if repeats == 1:
        return (lambda count: [_cpu_once(subject) for _ in range(count)]), []
    return (lambda count: [_cpu_block(subject, repeats) for _ in range(count)]), [f"{repeats} calls a sample"]


def _cpu_once(subject: Subject) -> float:
    state = subject.prepare()
    started = time.perf_counter_ns()
    subject.run(state)
    return (time.perf_counter_ns() - started) / 1e6


def _cpu_block(subject: Subject, repeats: int) -> float:
    started = time.perf_counter_ns()
    for _ in range(repeats):
        subject.run(None)
    return (time.perf_counter_ns() - started) / 1e6 / repeats


def _cuda_sampler(subject: Subject) -> tuple[Callable[[int], list[float]], list[str]]:
    """CUDA events around each call, the L2 overwritten before it; a graph replay where launching takes longer."""
    for _ in range(WARM_UP_CALLS):
        subject.call()
    subject.synchronise()
    timed: Callable[[torch.Tensor | None], object] = subject.run
    notes: list[str] = []
    if not subject.needs_graph:
        launching = _launch_seconds(subject)
        running = sum(_cuda_batch(subject, timed, 5)) / 5 / 1e3
        if running < max(GRAPH_BELOW_S, 1.5 * launching):
            graph = _capture(subject)
            if graph is None:
                notes.append(f"launch-bound: the host takes {1e6 * launching:.0f} us a call; no CUDA graph possible")
            else:
                timed = lambda state: graph.replay()  # noqa: E731
                notes.append("CUDA graph replay")
    return (lambda count: _cuda_batch(subject, timed, count)), notes


def _cuda_batch(subject: Subject, timed: Callable[[torch.Tensor | None], object], count: int) -> list[float]:
    flush = _flush_buffer(str(subject.device))
    pairs = []
    with torch.cuda.device(subject.device):
        for _ in range(count):
            state = subject.prepare()
            flush.zero_()
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            timed(state)
            end.record()
            pairs.append((start, end))
        torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in pairs]


def _launch_seconds(subject: Subject) -> float:
    subject.synchronise()
    started = time.perf_counter()
    for _ in range(10):
        subject.run(None)
    seconds = (time.perf_counter() - started) / 10
    subject.synchronise()
    return seconds


def _capture(subject: Subject) -> torch.cuda.CUDAGraph | None:
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.device(subject.device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                subject.run(None)
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(graph):
                subject.run(None)
        graph.replay()
        torch.cuda.synchronize(subject.device)
    except RuntimeError:  # an operator that synchronises or allocates outside the pool cannot be captured
        return None
    return graph


@cache
def _flush_buffer(device: str) -> torch.Tensor:
    size = torch.cuda.get_device_properties(device).L2_cache_size
    return torch.empty(max(size, 1 << 20), dtype=torch.int8, device=device)

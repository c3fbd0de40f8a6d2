"""Our median of a call on CUDA beside what others say of the same call in the same process, the L2 flushed alike.

    compared = compare(subject, subject.device, budget_s=0.2)      # scripts/timing_agreement.py --device cuda

- do_bench: triton.testing.do_bench, its flush replaced by ours. It enqueues many calls ahead, so where the host takes
  longer than flush and call together, it times the host; do_bench_held: the same with our spin before each flush.
- graph: the replay of a CUDA graph of the call, which the host enqueues at once, timed as we time a call.
- cupti: the durations of the call's kernels and copies as PyTorch's profiler has them from CUPTI, summed; span: from
  the start of the first to the end of the last, gaps included, which is what two events enclose.

One that fails is a reason in `failures` and no figure; the others go on.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch

from harness import stats
from harness.measuring.cuda import CudaDevice
from harness.measuring.held import Call, Stopwatch
from harness.measuring.metrics import Settings, latency

WARM_UP_CALLS = 3
SPIN = "spin_kernel"  # what torch.cuda._sleep launches
PROFILED_AT_MOST = 20


@dataclass(kw_only=True)
class Compared:
    """Medians in ms; `voids`: of our samples thrown away; hold_ms: how long the stream was held at the end."""

    harness_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    host_ms: float | None = None
    do_bench_ms: float | None = None
    do_bench_held_ms: float | None = None
    graph_ms: float | None = None
    cupti_ms: float | None = None
    span_ms: float | None = None
    kernels: int | None = None
    samples: int | None = None
    voids: int | None = None
    hold_ms: float | None = None
    wall: str = ""
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plain:
    """A function as a call: nothing to prepare."""

    function: Callable[[], Any]

    def prepare(self) -> None:
        return None

    def run(self, state: None) -> Any:
        return self.function()


@dataclass(frozen=True)
class _Replay:
    """A graph as a call; `out` is kept since every replay writes to it."""

    graph: torch.cuda.CUDAGraph
    out: Any

    def prepare(self) -> None:
        return None

    def run(self, state: None) -> None:
        self.graph.replay()


def compare(call: Call, device: torch.device, *, budget_s: float) -> Compared:
    """All of them, one after the other, each within about `budget_s`; ours first."""
    found = Compared()
    place = CudaDevice.of(device)

    def attempt(name: str, measure: Callable[[], None]) -> None:
        try:
            measure()
        except Exception as error:
            found.failures[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
            call.prepare()  # a step that ended midway leaves its gradients

    def ours() -> None:
        watch = Stopwatch(call, place)
        watch.settle()
        taken = stats.summarise(_sampled(watch, budget_s))
        found.harness_ms, found.low_ms, found.high_ms = taken.median, taken.ci_low, taken.ci_high
        found.host_ms = statistics.median(watch.host_ms) if watch.host_ms else None
        found.samples, found.voids, found.wall, found.hold_ms = (
            taken.samples,
            watch.void,
            watch.wall,
            watch.hold_ns / 1e6,
        )

    def by_graph() -> None:
        watch = Stopwatch(_captured(call, device), place)
        watch.settle()
        found.graph_ms = statistics.median(_sampled(watch, budget_s))

    def by_cupti() -> None:
        found.cupti_ms, found.span_ms, found.kernels = profiled(call, place, budget_s=budget_s)

    def by_do_bench() -> None:
        found.do_bench_ms = do_bench(call, place, budget_s=budget_s)
        if found.hold_ms is not None:
            found.do_bench_held_ms = do_bench(call, place, budget_s=budget_s, hold_ns=1e6 * found.hold_ms)

    attempt("harness", ours)
    attempt("do_bench", by_do_bench)
    attempt("graph", by_graph)
    attempt("cupti", by_cupti)  # last: what CUPTI leaves behind may slow the host
    return found


def do_bench(call: Call, place: CudaDevice, *, budget_s: float, hold_ns: float = 0.0) -> float:
    """The median of triton.testing.do_bench in ms, with our flush in the place of its own, behind a spin if any."""
    from triton import testing  # not here where there is no GPU
    from triton.runtime import driver

    def flush(cache: Any) -> None:
        if hold_ns:
            place.hold(hold_ns)
        place.flush()

    with mock.patch.object(driver.active, "clear_cache", flush):
        median: Any = testing.do_bench(
            lambda: call.run(call.prepare()), warmup=20, rep=round(1e3 * budget_s), return_mode="median"
        )
    return float(median)


def profiled(call: Call, place: CudaDevice, *, budget_s: float) -> tuple[float, float, int]:
    """Medians of the sum of one call's kernel times and of their span, in ms; and how many kernels and copies it is.

    Each call stands between two spins, by which its kernels are told from the flush's.
    """
    from torch.profiler import ProfilerActivity, profile

    began = place.now()
    call.run(call.prepare())
    place.synchronise()
    once_ns = place.now() - began
    calls = max(2, min(PROFILED_AT_MOST, round(1e9 * budget_s / (5 * once_ns))))
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        for _ in range(calls):
            state = call.prepare()
            place.flush()
            place.hold(3 * once_ns)  # so long that the host is ahead although it is being profiled
            call.run(state)
            place.hold(1000)
            place.synchronise()
    events = [e for e in recorded.profiler.kineto_results.events() if e.device_type().name == "CUDA"]  # type: ignore[union-attr]
    return between_spins([(e.name(), e.start_ns(), e.duration_ns()) for e in events])


def between_spins(events: list[tuple[str, int, int]]) -> tuple[float, float, int]:
    """From (name, start, duration) in ns of everything on the device: of what lies between each two spins the median
    sum and span in ms, and the count. Raises ValueError where there is nothing."""
    sums, spans, counts = [], [], []
    inside: list[tuple[int, int]] | None = None
    for name, start, duration in sorted(events, key=lambda event: event[1]):
        if SPIN not in name:
            if inside is not None:
                inside.append((start, duration))
        elif inside is None:
            inside = []
        else:
            if inside:
                sums.append(sum(duration for _, duration in inside) / 1e6)
                spans.append((max(at + duration for at, duration in inside) - inside[0][0]) / 1e6)
                counts.append(len(inside))
            inside = None
    if not sums:
        raise ValueError(f"no kernel between two spins among {len(events)} events")
    return statistics.median(sums), statistics.median(spans), round(statistics.median(counts))


def _sampled(watch: Stopwatch, budget_s: float) -> list[float]:
    return latency.until_evidence(watch.sample, Settings(budget_s=budget_s, precision=0.002))[0]


def _captured(call: Call, device: torch.device) -> Call:
    """The replay of a CUDA graph of one call."""
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_CALLS):
                call.run(call.prepare())
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        state = call.prepare()
        with torch.cuda.graph(graph):
            out = call.run(state)
    return _Replay(graph, out)

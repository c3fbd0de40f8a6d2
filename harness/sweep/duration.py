"""How long a case takes to measure, from its cost model and what the device can do. No torch.

    duration = Duration(device="cpu", ceilings=ceilings, exact={"full"}, budget_s=2.0, metrics=("latency",))
    duration.of(resolution)            # seconds; less for the next case that shares this one's float64 reference

A call is taken to need its FLOPs at a share of the matrix rate and several passes over the memory that it holds; a
metric some calls and a start of its own. The numbers below were fitted on runs of two CPUs (results/cpu, 286 and 80
cases) and an H200 (results/h200), which they add up to within a fifth.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from harness.cases.catalogue import Resolution

START_S = {"cpu": 6.0, "cuda": 14.0}  # interpreter, PyTorch, what runs here, ceilings
CASE_S = {"cpu": 0.08, "cuda": 0.2}  # inputs, the lines between engine and worker, rows to disk
TRACE_S = {"cpu": 0.17, "cuda": 0.2}  # the profiler's start and end
COMPARE_S = {"cpu": 0.02, "cuda": 0.06}
LOOKED_AT = {"cpu": 150.0, "cuda": 30.0}  # passes over q, k, v, output: drawn, watched, compared; cuda: not fitted
FIRST_S = {"cpu": 0.02, "cuda": 0.12}  # loading or compiling kernels
CALL_S = {"cpu": 2e-4, "cuda": 1e-4}  # of a call that does nothing
BELOW_PEAK, PASSES = 1.7, 6.0  # FLOPs take so much longer than a product's; memory is passed over so often
REFERENCE = {"cpu": 8.0, "cuda": 4.0}  # the float64 reference over its FLOPs at half of float32's rate
REFERENCE_OF_MODEL = 3.0  # most of which are large products
ROWS, ROWS_AGAIN = 512, 128  # of harness.measuring.metrics.error
UNKNOWN_CALL_S = 0.02  # of a case without a cost model
SHARE_OF_PHASE = {"forward": 1.0, "backward": 2.0, "train": 3.0, "step": 3.0}
FEWEST, MIN_SAMPLES, OVERDRAWN = 3, 10, 5  # of harness.measuring.metrics.latency
SAMPLE_S = {"cpu": 2e-4, "cuda": 4e-4}  # the shortest sample; a flush, and what holds the stream
ENOUGH = {"cpu": 150, "cuda": 40}  # samples until the median is certain to 1 %, the median over committed runs
CHECKED = {"latency", "host", "throughput", "flops", "flops_rate", "roofline_fraction", "bytes_moved", "energy"}
TRACED = {"peak_memory", "kernels"}
ELEMENT_BYTES = {"float64": 8, "float32": 4}  # else 2


class Duration:
    """Seconds of cases, one after the other."""

    def __init__(
        self, *, device: str, ceilings: Mapping[str, Any], exact: Collection[str], budget_s: float,
        metrics: Sequence[str],
    ) -> None:  # fmt: skip
        self.device, self.ceilings, self.exact = device, ceilings, exact
        self.budget_s, self.metrics = budget_s, set(metrics)
        self._known: set[tuple[Any, ...]] = set()  # problems whose reference a case before has paid for

    def of(self, resolution: Resolution) -> float:
        """Seconds that measuring the case takes."""
        call = self._call(resolution)
        timed = bool(self.metrics & CHECKED)
        compared = timed or bool(self.metrics & {"numeric_error", "approximation_error"})
        graph = resolution.case.phase != "forward"
        seconds = CASE_S[self.device] + FIRST_S[self.device] + 1.5 * call
        if compared:
            seconds += (1 + graph / 3) * call + COMPARE_S[self.device] + self._looking(resolution)
            seconds += self._reference(resolution, again=timed)
        if timed:
            seconds += self._sampling(call) + call
        if self.metrics & TRACED:
            seconds += TRACE_S[self.device] + 1.2 * call
        if self.metrics & {"flops", "flops_rate"}:
            seconds += 1.2 * call
        if "energy" in self.metrics and self.device == "cuda":
            seconds += 1.0
        return seconds

    def _call(self, resolution: Resolution) -> float:
        """Seconds of one call of the phase."""
        if resolution.flops is None or resolution.peak_bytes is None:
            return UNKNOWN_CALL_S
        rate = self._rate(resolution.case.dtype)
        copy = self.ceilings["copy_gb_per_s"] * 1e9
        work = BELOW_PEAK * resolution.flops / rate + PASSES * resolution.peak_bytes / copy
        return CALL_S[self.device] + work

    def _looking(self, resolution: Resolution) -> float:
        """What is done to a case's tensors beside calling it."""
        case = resolution.case
        elements = 2 * case.b * case.h * (case.n + case.key_tokens) * case.d
        nbytes = ELEMENT_BYTES.get(case.dtype, 2) * elements
        return LOOKED_AT[self.device] * nbytes / (self.ceilings["copy_gb_per_s"] * 1e9)

    def _sampling(self, call: float) -> float:
        """Warm-up, then samples until they are certain enough or the budget is spent."""
        warm = min(FEWEST, max(1, math.ceil(0.5 / call))) * call
        sample = call + SAMPLE_S[self.device] if self.device == "cuda" else max(call, SAMPLE_S[self.device])
        if MIN_SAMPLES * call <= self.budget_s:
            return warm + min(self.budget_s, ENOUGH[self.device] * sample)
        return warm + min(MIN_SAMPLES * call, max(FEWEST * call, OVERDRAWN * self.budget_s + call / 2))

    def _reference(self, resolution: Resolution, *, again: bool) -> float:
        """The float64 reference of the case, where no case before it had the same, and that of the second check."""
        case, graph = resolution.case, resolution.case.phase != "forward"
        if resolution.flops is None:
            return 0.0
        forward = resolution.flops / SHARE_OF_PHASE[case.phase] / (case.b if case.scope == "model" else 1)
        problem = (case.scope, case.b, case.h, case.n, case.d, case.dtype, case.seed, case.problem)
        rows = 4 * case.b * case.h * case.key_tokens * min(case.n, ROWS) * case.d
        exact = case.attention in self.exact
        mine = ("exact",) if exact else (case.attention, case.m, case.options)
        by_rows = exact and case.scope != "model"
        once = rows if by_rows else forward
        flops = self._once((*problem, *mine, graph), once * (4 if graph else 1))
        if again:
            share = min(1.0, ROWS_AGAIN / min(case.n, ROWS)) if by_rows else 1.0
            flops += self._once((*problem, *mine, graph, "again"), share * once * (4 if graph else 1))
        if not exact and not graph and case.scope == "core":
            flops += self._once((*problem, "exact", False), rows)  # what it approximates
        slower = REFERENCE_OF_MODEL if case.scope == "model" else REFERENCE[self.device]
        return slower * flops / (self._rate("float32") / 2)

    def _once(self, key: tuple[Any, ...], flops: float) -> float:
        """`flops` the first time that a problem is met, then nothing."""
        known, _ = key in self._known, self._known.add(key)
        return 0.0 if known else flops

    def _rate(self, dtype: str) -> float:
        """FLOP/s of a matrix product; of one dtype for another that was not measured."""
        rates = self.ceilings["matmul_tflops"]
        return 1e12 * rates.get(dtype, min(rates.values()))

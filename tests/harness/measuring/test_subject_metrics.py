"""Each metric on cases whose answer is known: in this process, at small sizes, on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import making
import numpy as np
import pytest
import torch

import attentions
from attentions import registry
from attentions.work import PHASES
from harness.errors import UsageError
from harness.measuring import metrics
from harness.measuring.metrics import Settings, latency
from harness.measuring.metrics.error import ROWS, TOLERANCES, WrongResult, relative
from harness.measuring.metrics.flops import count
from harness.measuring.subject import Subject, trace
from harness.store.record import UNITS, Case, Reading

VARIANTS = Path(__file__).parents[1] / "variants.py"
QUICK = {"budget_s": 0.01}
VARIED = [("full", None, "reference"), ("anchor", 8, "reference"), ("linformer", 8, "reference")]


@pytest.fixture(autouse=True, scope="module")
def _plugins() -> Iterator[None]:
    """The variants that go wrong are known in this file only."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    before = dict(registry._plugins)
    attentions.load_plugin(VARIANTS)
    yield
    registry._plugins.clear()
    registry._plugins.update(before)
    torch.set_num_threads(threads)


def measure(case: Case, *wanted: str, **settings: Any) -> dict[str, Reading]:
    """The readings that `wanted` takes, as the worker measures them."""
    subject, found = Subject(case), {}
    for metric in metrics.plan(wanted):
        for reading in metric.measure(subject, found, Settings(**QUICK | settings)):
            found[reading.metric] = reading
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize(("b", "h", "n", "d"), [(1, 2, 64, 16), (2, 3, 96, 32)])
def test_full_holds_its_scores_twice_and_its_output(dtype: str, b: int, h: int, n: int, d: int) -> None:
    """The product, its scaled copy, then the weights in the product's place, and what they give."""
    found = measure(making.case(b=b, h=h, n=n, d=d, dtype=dtype), "peak_memory")["peak_memory"].value
    expected = (2 * b * h * n * n + b * h * n * d) * getattr(torch, dtype).itemsize / 2**20
    assert found == expected if dtype != "bfloat16" else found >= expected  # whose products may need scratch on a CPU


def test_memory_and_kernels_do_not_depend_on_what_ran_before() -> None:
    case = making.case(phase="train")
    first, again = (measure(case, "peak_memory", "kernels") for _ in range(2))
    other = measure(making.case(n=96, attention="anchor", m=8), "peak_memory", "kernels")
    last = measure(case, "peak_memory", "kernels")
    assert first == again | {"first_call": first["first_call"]} == last | {"first_call": first["first_call"]}
    assert other["kernels"] != first["kernels"]


TRACED = """
    import json, os, sys
    os.environ["KINETO_LOG_LEVEL"] = "5"
    from harness.store.record import Case
    from harness.measuring.subject import Subject, trace
    found = []
    for case in json.load(sys.stdin):
        subject = Subject(Case(**case))
        subject.call()
        one = trace(subject)
        found.append([one.peak_bytes, one.launches, one.names])
    print(json.dumps(found))
"""


@pytest.mark.slow
def test_memory_and_kernels_are_the_same_in_every_process(surroundings: dict[str, str]) -> None:
    cases = [
        making.case(attention=name, m=m, backend=backend, phase=phase)
        for name, m, backend in VARIED
        for phase in PHASES
    ]
    here = []
    for case in cases:
        subject = Subject(case)
        subject.call()
        found = trace(subject)
        here.append([found.peak_bytes, found.launches, found.names])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TRACED)], input=json.dumps([vars(case) for case in cases]), text=True,
        capture_output=True, check=True, env=surroundings,
    )  # fmt: skip
    assert json.loads(done.stdout) == here


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("scope", ["core", "layer"])
@pytest.mark.parametrize(("attention", "m", "backend"), VARIED)
def test_every_metric_of_every_phase_and_scope(
    attention: str, m: int | None, backend: str, scope: str, phase: str
) -> None:
    case = making.case(attention=attention, m=m, backend=backend, scope=scope, phase=phase, b=2)
    found = measure(case, *UNITS, ceilings={"copy_gb_per_s": 10.0, "matmul_tflops": {"float32": 0.05}})
    assert list(found.keys() - UNITS.keys()) == []
    unsupported = {name for name, reading in found.items() if reading.status != "ok"}
    forward_core = scope == "core" and phase == "forward"
    assert unsupported == {"host", "energy"} | (set() if forward_core else {"approximation_error"}), found
    assert found["numeric_error"].value <= 1e-5
    assert all(r.value > 0 for name, r in found.items() if r.status == "ok" and not name.endswith(("error", "params")))
    assert found["flops_rate"].value == pytest.approx(found["flops"].value / found["latency"].value / 1e9)
    assert found["throughput"].value == pytest.approx(2 * 64e3 / found["latency"].value)


def test_backward_costs_twice_forward_and_train_both() -> None:
    forward, backward, train = (measure(making.case(phase=p), "flops")["flops"].value for p in PHASES)
    assert forward == 4 * 2 * 64 * 64 * 16
    assert (backward, train) == (2 * forward, 3 * forward)
    moved = [measure(making.case(phase=p), "bytes_moved")["bytes_moved"].value for p in PHASES]
    assert moved == [tensors * 2 * 64 * 16 * 4 / 2**20 for tensors in (4, 7, 8)]


def test_the_roofline_is_the_slower_of_bytes_and_flops() -> None:
    flops, moved = 4 * 2 * 64 * 64 * 16, 4 * 2 * 64 * 16 * 4
    for copy, product, bound in ((1.0, 1e3, "memory"), (1e9, 1.0, "arithmetic")):
        ceilings = {"copy_gb_per_s": copy, "matmul_tflops": {"float32": product}}
        found = measure(making.case(), "roofline_fraction", ceilings=ceilings)
        least = max(moved / copy / 1e6, flops / product / 1e9)
        assert found["roofline_fraction"].value == pytest.approx(least / found["latency"].value)
        assert found["roofline_fraction"].note.startswith(f"bound by {bound}: least {least:.4g} ms")
    missing = measure(making.case(dtype="bfloat16"), "roofline_fraction", ceilings=ceilings)["roofline_fraction"]
    assert (missing.status, missing.note) == ("unsupported", "no measured ceilings for bfloat16 on cpu")


def test_a_plugin_without_a_cost_model_has_no_roofline() -> None:
    found = measure(making.case(attention="unmodelled"), "roofline_fraction", "flops")
    assert found["flops"].value == 4 * 2 * 64 * 64 * 16
    assert found["bytes_moved"].status == found["roofline_fraction"].status == "unsupported"


@pytest.mark.parametrize(
    ("attention", "declared"), [("miscounted", 2 * 2 * 64 * 64 * 16), ("uncounted", 0)], ids=["half", "zero"]
)
def test_flops_that_disagree_are_an_error(attention: str, declared: int) -> None:
    found = measure(making.case(attention=attention), "flops")
    note = f"the cost model says {declared} and the dispatcher counted {4 * 2 * 64 * 64 * 16}"
    assert (found["flops"].status, found["flops"].value, found["flops"].note) == ("error", None, note)
    assert found["flops_rate"].status == "error"
    assert found["latency"].status == "ok"


def test_a_silent_zero_of_the_dispatcher_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.measuring.metrics.flops.count", lambda subject: 0)
    for attention in ("full", "unmodelled", "uncounted"):
        found = measure(making.case(attention=attention), "flops")
        assert found["flops"].status == "error", attention
        assert "counted 0" in found["flops"].note or found["flops"].note == "0 FLOPs were counted"


@pytest.mark.parametrize("groups", [1, 4])
def test_a_convolutions_backward_is_counted_once_a_group(groups: int) -> None:
    """PyTorch counts the weight's gradient of a grouped convolution for every pair of groups."""
    x, weight = torch.randn(2, 4, 32, 1), torch.randn(4, 4 // groups, 3, 1)

    class Convolution:
        def prepare(self) -> None: ...

        def run(self, state: None) -> None:
            a, w = x.requires_grad_(), weight.requires_grad_()
            torch.nn.functional.conv2d(a, w, padding=(1, 0), groups=groups).sum().backward()

    forward = 2 * 2 * 4 * 32 * (4 // groups) * 3
    assert count(Convolution()) == 3 * forward  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", sorted(TOLERANCES))
def test_a_right_result_is_near_zero(dtype: str) -> None:
    for attention, m, backend in VARIED:
        case = making.case(attention=attention, m=m, backend=backend, dtype=dtype)
        assert 0 <= measure(case, "numeric_error")["numeric_error"].value < TOLERANCES[dtype] / 2


def test_exact_variants_approximate_nothing_and_others_do() -> None:
    exact = measure(making.case(), "approximation_error")
    assert exact["approximation_error"].value == exact["numeric_error"].value
    assert measure(making.case(attention="anchor", m=8), "approximation_error")["approximation_error"].value > 0.1


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        ("nan", r"the output has 1 values that are not finite"),
        ("wrong", r"numeric_error 0\.01 exceeds the tolerance 0\.000[14] of float32"),
        ("misshapen", r"the output is torch\.float32 of shape \(1, 2, 1, 16\), not torch\.float32 of \(1, 2, 64, 16\)"),
        ("other_dtype", r"the output is torch\.float64 of shape"),
        ("in_place", r"the call changes its inputs in place"),
    ],
)
@pytest.mark.parametrize("phase", PHASES)
def test_a_wrong_result_is_not_timed(attention: str, message: str, phase: str) -> None:
    if phase != "forward":  # autograd says these itself, of the first call
        message = {"in_place": "a leaf Variable that requires grad", "misshapen": "Mismatch in shape"}.get(
            attention, message
        )
    with pytest.raises(RuntimeError, match=message):
        measure(making.case(attention=attention, phase=phase), "latency")


@pytest.mark.parametrize("attention", ["last_key", "last_query"])
@pytest.mark.parametrize("phase", ["forward", "train"])
@pytest.mark.parametrize("n", [64, ROWS + 1, 1500])
def test_an_error_in_one_row_is_found(attention: str, phase: str, n: int) -> None:
    """Over 512 query rows only some are compared: a key too few shows in all, and the first and last always are."""
    assert measure(making.case(attention="right", phase=phase, n=n), "numeric_error")["numeric_error"].value < 1e-5
    with pytest.raises(WrongResult, match=r"exceeds the tolerance" if n <= ROWS else f"compared on 512 of {n} query"):
        measure(making.case(attention=attention, phase=phase, n=n), "latency")


def test_relative_error_is_a_ratio_of_norms() -> None:
    reference = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert relative(torch.tensor([3.0, 4.0]), reference) == 0
    assert relative(torch.tensor([3.0, 4.5]), reference) == pytest.approx(0.1)
    assert relative(torch.tensor([3.0, float("nan")]), reference) == float("inf")
    zero = torch.zeros(2, dtype=torch.float64)
    assert (relative(torch.zeros(2), zero), relative(torch.ones(2), zero)) == (0.0, float("inf"))


@pytest.mark.parametrize("phase", ["backward", "train"])
@pytest.mark.parametrize("scope", ["core", "layer"])
def test_gradients_do_not_accumulate(phase: str, scope: str) -> None:
    subject = Subject(making.case(attention="anchor", m=8, phase=phase, scope=scope))
    seen = []
    for _ in range(3):
        subject.rewind()  # to the same inputs
        subject.call()
        tensors = [*subject.inputs, *subject.module.parameters()]
        seen.append([None if t.grad is None else t.grad.clone() for t in tensors])
    assert any(grad is not None and grad.abs().sum() > 0 for grad in seen[0])
    for again in seen[1:]:
        assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(seen[0], again, strict=True))


def test_backward_is_timed_on_a_fresh_graph_and_without_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(making.case(phase="backward"))
    graphs = [subject.prepare() for _ in range(2)]
    assert graphs[0] is not graphs[1]
    calls = []
    monkeypatch.setattr(type(subject.module), "forward", lambda *args: calls.append(args))
    subject.run(graphs[0])
    assert not calls
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        subject.run(graphs[0])


def test_inputs_and_parameters_come_from_the_seed() -> None:
    case = making.case(attention="anchor", m=8)
    one, same, other = Subject(case), Subject(case), Subject(replace(case, seed=1))
    assert all(map(torch.equal, one.inputs, same.inputs))
    assert torch.equal(one.module.anchors, same.module.anchors)
    assert not torch.equal(one.inputs[0], other.inputs[0])
    assert not torch.equal(one.module.anchors, other.module.anchors)
    narrow = Subject(replace(case, dtype="bfloat16"))
    assert torch.equal(narrow.inputs[0], one.inputs[0].bfloat16())


def test_needs_are_measured_first_and_unknown_metrics_refused() -> None:
    order = [module.PROVIDES[0] for module in metrics.plan(["roofline_fraction"])]
    assert (
        order.index("first_call") < order.index("numeric_error") < order.index("latency") < order.index("bytes_moved")
    )
    assert metrics.plan([]) == []
    with pytest.raises(UsageError, match="did you mean 'latency'"):
        metrics.plan(["latencyy"])
    provided = {name for module in metrics.plan(list(UNITS)) for name in module.PROVIDES}
    assert provided == set(UNITS)


class Clock:
    """Time that passes only while samples are taken."""

    def __init__(self, times_ms: Iterator[float]) -> None:
        self.now, self.times = 0.0, times_ms

    def __call__(self) -> float:
        return self.now

    def sample(self, count: int) -> list[float]:
        taken = [next(self.times) for _ in range(count)]
        self.now += sum(taken) / 1e3
        return taken


def drawn(seed: int, spread: float, *, every_ms: float = 1.0) -> Clock:
    random = np.random.default_rng(seed)
    return Clock(iter(lambda: every_ms * float(np.exp(spread * random.standard_normal())), None))


def collect(clock: Clock, **settings: Any) -> tuple[list[float], str]:
    return latency.until_evidence(clock.sample, Settings(**settings), clock=clock)


def test_steady_times_converge_after_few_samples() -> None:
    samples, stopped = collect(drawn(1, 0.001), budget_s=60)
    assert stopped == "converged"
    assert 10 <= len(samples) <= 1000
    samples, stopped = collect(Clock(iter(lambda: 0.5, None)), budget_s=60)
    assert stopped == "converged"


def test_noisy_times_take_more_samples_until_their_median_is_known() -> None:
    few, many = (collect(drawn(2, spread), budget_s=600)[0] for spread in (0.02, 0.1))
    assert len(many) > 2 * len(few)
    for samples in (few, many):
        low, high = latency.stats.median_interval(samples)
        assert (high - low) / 2 / np.median(samples) < 0.01


def test_a_drifting_machine_is_not_sampled_for_ever() -> None:
    random, at = np.random.default_rng(3), iter(range(10**9))
    drifting = Clock(iter(lambda: 1 + next(at) / 300 + 0.3 * float(random.random()), None))
    samples, stopped = collect(drifting, budget_s=3600)
    assert stopped == "stable"
    assert len(samples) >= 200


def test_the_budget_ends_what_neither_converges_nor_settles() -> None:
    clock = drawn(4, 1.0)
    samples, stopped = collect(clock, budget_s=0.5)
    assert stopped == "budget"
    assert clock.now == pytest.approx(sum(samples) / 1e3)
    assert 0.5 <= clock.now < 1.5


@pytest.mark.parametrize(("every_s", "count"), [(0.1, 10), (0.9, 10), (1.5, 7), (4.0, 3), (60.0, 3)])
def test_slow_calls_get_ten_samples_or_what_five_budgets_hold(every_s: float, count: int) -> None:
    samples, stopped = collect(Clock(iter(lambda: 1e3 * every_s, None)), budget_s=2)
    assert len(samples) == count
    assert stopped == ("converged" if count == 10 else "budget")


def test_the_stopping_rule_and_interval_are_in_the_row() -> None:
    found = measure(making.case(), "latency", budget_s=0.05)["latency"]
    assert found.ci_low <= found.value <= found.ci_high
    assert found.p20 <= found.value <= found.p80
    assert any(f"stopped: {why} at ±" in found.note for why in ("converged", "stable", "budget"))


def test_an_interval_of_few_samples_says_so() -> None:
    few, enough = (latency.stats.summarise([1.0, 2.0, 3.0] * times) for times in (1, 2))
    assert latency.how_it_ended("budget", few).endswith("the range of 3 samples: too few for a 95 % interval")
    assert latency.how_it_ended("budget", enough) == "stopped: budget at ±50 %"


def test_every_raw_sample_is_kept() -> None:
    settings = Settings(**QUICK)
    subject, found = Subject(making.case()), {}
    for metric in metrics.plan(["latency"]):
        for reading in metric.measure(subject, found, settings):
            found[reading.metric] = reading
    samples = settings.samples["latency"]
    assert found["latency"].samples == len(samples)
    assert found["latency"].value == np.median(samples)
    assert (found["latency"].p20, found["latency"].p80) == tuple(np.quantile(samples, [0.2, 0.8]))

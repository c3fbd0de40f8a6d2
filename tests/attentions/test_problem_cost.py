"""Costs of causal, grouped and cross attention against what the dispatcher counts and the allocator hands out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_problems import ASKED, options_of

import attentions

PHASES = ("forward", "backward", "train")
SIZES = [(2, 4, 48, 8, 6), (1, 4, 197, 16, 30), (2, 4, 20, 8, 24), (1, 4, 600, 8, 8)]
PEAK_SIZES = [(1, 4, 2048, 32, 32), (2, 4, 1024, 32, 8), (1, 4, 2048, 16, 64)]
PEAK_PROBLEMS = {name: ASKED[name] for name in ("causal", "grouped", "multi-query", "causal-grouped")} | {
    "few keys": {"kv_tokens": 256},
    "many keys": {"kv_tokens": 4096},
    "cross-grouped": {"kv_heads": 2, "kv_tokens": 1024},
}

phases = pytest.mark.parametrize("phase", PHASES)
asked = pytest.mark.parametrize("problem", ASKED.values(), ids=ASKED)


def calls(
    implementation: Any, size: tuple[int, ...], problem: dict[str, Any], dtype: torch.dtype = torch.float32
) -> dict[str, Callable[[], Any]]:
    """One call of each phase, as tests/attentions/test_cost.py has them."""
    b, h, n, d, m = size
    options = options_of(implementation, problem)
    core = implementation.build(h, n, d, m, dtype=dtype, **problem, **options)
    keys = {name: value for name, value in problem.items() if name != "causal"}
    inputs = implementation.inputs(b, h, n, d, dtype=dtype, **keys)
    upstream = torch.ones(b, h, n, d, dtype=dtype)

    def forward() -> Any:
        with torch.no_grad():
            return core(*inputs)

    def train() -> Any:
        out = core(*inputs)
        out.backward(upstream)
        for tensor in (*inputs, *core.parameters()):
            tensor.grad = None  # freed inside the call: the next one starts from the same memory
        return out

    graph = core(*inputs)
    return {"forward": forward, "backward": lambda: graph.backward(upstream), "train": train}


def declared(implementation: Any, size: tuple[int, ...], problem: dict[str, Any], phase: str) -> attentions.Cost:
    return implementation.spec.cost(
        *size, phase, backend=implementation.backend.name, **problem, **options_of(implementation, problem)
    )


def skip_unless_can(implementation: Any, size: tuple[int, ...], problem: dict[str, Any]) -> None:
    options = options_of(implementation, problem)
    if reason := implementation.refusal(*size, dtype=torch.float32, problem=problem, **options):
        pytest.skip(f"{implementation.name} {reason}")


@phases
@asked
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_flops_are_what_is_counted(
    implementation: Any, size: tuple[int, ...], problem: dict[str, Any], phase: str, count_flops: Any
) -> None:
    skip_unless_can(implementation, size, problem)
    if implementation.backend.opaque:
        pytest.skip(f"{implementation.name} is opaque to the dispatcher")
    counted = count_flops(calls(implementation, size, problem)[phase])
    assert counted == declared(implementation, size, problem, phase).flops > 0


@pytest.mark.parametrize("phase", ["forward", "train"])
@pytest.mark.parametrize("problem", PEAK_PROBLEMS.values(), ids=PEAK_PROBLEMS)
@pytest.mark.parametrize("size", PEAK_SIZES, ids=str)
def test_peak_is_what_is_allocated(
    variant: Any, size: tuple[int, ...], problem: dict[str, Any], phase: str, measure_peak: Any
) -> None:
    skip_unless_can(variant, size, problem)
    run = calls(variant, size, problem)[phase]
    run()
    assert measure_peak(run) == pytest.approx(declared(variant, size, problem, phase).peak, rel=0.15)


@pytest.mark.parametrize("phase", ["forward", "train"])
@pytest.mark.parametrize("problem", [PEAK_PROBLEMS["causal"], PEAK_PROBLEMS["many keys"]], ids=["causal", "cross"])
def test_peak_in_half_precision(variant: Any, problem: dict[str, Any], phase: str, measure_peak: Any) -> None:
    size = (1, 4, 2048, 16, 64)
    skip_unless_can(variant, size, problem)
    run = calls(variant, size, problem, torch.bfloat16)[phase]
    run()
    cost = variant.spec.cost(*size, phase, itemsize=2, **problem, **options_of(variant, problem))
    assert measure_peak(run) == pytest.approx(cost.peak, rel=0.2)


@asked
def test_bytes_are_inputs_and_outputs_once(variant: Any, problem: dict[str, Any]) -> None:
    b, h, n, d, m = size = (2, 4, 48, 8, 6)
    skip_unless_can(variant, size, problem)
    keys = {name: value for name, value in problem.items() if name != "causal"}
    q, k, v = variant.inputs(b, h, n, d, **keys)
    core = variant.build(h, n, d, m, **problem, **options_of(variant, problem))
    read = [v] if variant.spec.floor else [k, v] if variant.spec.shares_query_key else [q, k, v]
    inputs, output = 4 * sum(x.numel() for x in read), 4 * q.numel()
    weights, fixed = (4 * sum(x.numel() for x in group) for group in (core.parameters(), core.buffers()))
    moved = {phase: declared(variant, size, problem, phase).bytes for phase in PHASES}
    assert moved["forward"] == inputs + output + weights + fixed
    assert moved["backward"] == 2 * inputs + output + 2 * weights + fixed
    assert moved["train"] == 2 * inputs + 2 * output + 2 * weights + fixed


def test_causal_exact_attention_counts_half(exact: Any) -> None:
    for n in (64, 65):
        for phase in PHASES:
            whole, half = (exact.spec.cost(1, 4, n, 8, phase=phase, causal=causal).bytes for causal in (False, True))
            assert whole == half
            assert exact.spec.model is not None
            works = [attentions.Work(b=1, h=4, n=n, d=8, phase=phase, causal=causal) for causal in (False, True)]
            assert exact.spec.model(works[0]).flops == 2 * exact.spec.model(works[1]).flops


@pytest.mark.parametrize("phase", PHASES)
def test_running_sums_are_linear_in_n(variant: Any, phase: str) -> None:
    definition = variant.spec
    if "causal" not in definition.problems or definition.exponents.flops_n != 1:
        pytest.skip("no running sums")
    n = 2**16
    costs = [definition.cost(1, 2, length, 16, 16, phase, causal=True) for length in (n, 2 * n)]
    assert costs[1].flops == pytest.approx(2 * costs[0].flops, rel=0.01)
    assert costs[1].peak == pytest.approx(2 * costs[0].peak, rel=0.01)


@pytest.mark.parametrize(("n", "reach"), [(1024, 128), (1000, 128), (130, 7), (40, 39), (40, 400)])
def test_a_causal_windows_pairs_and_tiles(n: int, reach: int) -> None:
    from attentions.variants import window

    token = torch.arange(-(-n // window.TILE) * window.TILE)
    back = token.unsqueeze(-1) - token
    seen = (back >= 0) & (back <= reach) & (token < n) & (token < n).unsqueeze(-1)
    work = attentions.Work(b=2, h=3, n=n, d=8, options={"reach": reach}, causal=True)
    assert window.cost(work).flops == 4 * 2 * 3 * int(seen.sum()) * 8
    met = seen.unflatten(1, (-1, window.TILE)).unflatten(0, (-1, window.TILE)).any(dim=3).any(dim=1)
    mask = window._block_mask(n, reach, torch.device("cpu"), causal=True)
    assert torch.equal(mask.to_dense()[0, 0].bool(), met)
    assert window._flex_flops(work) == 4 * 2 * 3 * int(met.sum()) * window.TILE**2 * 8


@pytest.mark.parametrize("n", [1, 128, 129, 1000])
def test_causal_tiles_are_those_below_the_diagonal(n: int) -> None:
    from attentions import flex

    mask = flex.causal(n, torch.device("cpu"))
    rows = -(-n // flex.TILE)
    assert torch.equal(mask.to_dense()[0, 0].bool(), torch.ones(rows, rows).tril().bool())

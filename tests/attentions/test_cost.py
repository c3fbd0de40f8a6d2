"""Declared costs against what PyTorch's dispatcher counts and its allocator hands out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import attentions

PHASES = ("forward", "backward", "train")
SIZES = [(2, 3, 48, 8, 6), (1, 2, 197, 16, 30), (2, 2, 20, 8, 24)]
OPTIONS = [
    ("linformer", {"sharing": "none"}),
    ("linformer", {"sharing": "key_value"}),
    ("linformer", {"sharing": "layerwise"}),
    ("nystrom", {"residual_kernel": 0}),
    ("nystrom", {"iterations": 2, "residual_kernel": 5}),
    ("window", {"reach": 16}),
    ("window", {"reach": 31}),
    ("anchor", {"logits": "cosine"}),
    ("anchor", {"scatter": "separate"}),
    ("anchor", {"bias": True}),
    ("anchor", {"per_head": True}),
    ("anchor", {"tempered": "head"}),
    ("anchor", {"tempered": "token"}),
    ("anchor", {"self": "excluded"}),
    ("anchor", {"self": "learned"}),
    ("anchor", {"local": 3}),
    ("anchor", {"local": 3, "columns": 16}),
    ("anchor", {"local": 3, "columns": 21}),
    ("anchor", {"gate": True}),
    ("anchor", {"importance": True}),
    ("anchor", {"importance": True, "self": "excluded", "logits": "cosine"}),
    ("anchor", {"importance": True, "scatter": "separate", "self": "learned"}),
    ("anchor", {"scatter": "separate", "bias": True, "self": "excluded"}),
    ("anchor", {"tempered": "token", "self": "learned", "local": 3, "gate": True}),
    ("transolver", {"mixing": False}),
]
PEAK_SIZES = [(1, 2, 2048, 32, 32), (2, 3, 1024, 32, 8), (1, 2, 2048, 16, 128)]
WIDE_SIZES = [(1, 4, 2048, 16, 64), (1, 2, 2048, 16, 128)]  # narrow types add the matrix library's copies of (n, d)

phases = pytest.mark.parametrize("phase", PHASES)


def calls(
    implementation: Any, size: tuple[int, ...], dtype: torch.dtype, **options: Any
) -> dict[str, Callable[[], Any]]:
    """One call of each phase, as a user would time it; `backward` starts from a graph built here."""
    b, h, n, d, m = size
    core = implementation.build(h, n, d, m, dtype=dtype, **options)
    inputs = implementation.inputs(b, h, n, d, dtype=dtype)
    upstream = torch.ones(b, h, n, d, dtype=dtype, device=implementation.device)

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


def check_flops(implementation: Any, size: tuple[int, ...], phase: str, count_flops: Any, dtype: torch.dtype) -> None:
    if implementation.backend.opaque:
        pytest.skip(f"{implementation.name} is opaque to the dispatcher")
    implementation.skip_unless_runs(*size, dtype=dtype, phase=phase)
    counted = count_flops(calls(implementation, size, dtype)[phase])
    there = {"backend": implementation.backend.name, "device": implementation.device}
    assert counted == implementation.spec.cost(*size, phase, **there).flops > 0


@phases
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_flops_are_what_is_counted(implementation: Any, size: tuple[int, ...], phase: str, count_flops: Any) -> None:
    check_flops(implementation, size, phase, count_flops, torch.float32)


@phases
def test_flops_of_a_gpus_operators_are_what_is_counted(on_device: Any, phase: str, count_flops: Any) -> None:
    check_flops(on_device, (1, 2, 197, 64, 30), phase, count_flops, torch.bfloat16)


@phases
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_flops_follow_the_options(name: str, options: dict[str, Any], phase: str, count_flops: Any, make: Any) -> None:
    implementation, size = make(f"{name}:reference"), (2, 3, 48, 8, 6)
    counted = count_flops(calls(implementation, size, torch.float32, **options)[phase])
    assert counted == implementation.spec.cost(*size, phase, **options).flops


@pytest.mark.parametrize("phase", ["forward", "train"])
@pytest.mark.parametrize("size", PEAK_SIZES, ids=str)
def test_peak_is_what_is_allocated(variant: Any, size: tuple[int, ...], phase: str, measure_peak: Any) -> None:
    run = calls(variant, size, torch.float32)[phase]
    run()
    declared = variant.spec.cost(*size, phase)
    assert measure_peak(run) == pytest.approx(declared.peak, rel=0.1)


@pytest.mark.parametrize("phase", ["forward", "train"])
@pytest.mark.parametrize("size", WIDE_SIZES, ids=str)
def test_peak_in_half_precision(variant: Any, size: tuple[int, ...], phase: str, measure_peak: Any) -> None:
    run = calls(variant, size, torch.bfloat16)[phase]
    run()
    declared = variant.spec.cost(*size, phase, itemsize=2)
    assert measure_peak(run) == pytest.approx(declared.peak, rel=0.15)


@pytest.mark.parametrize("phase", ["forward", "train"])
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_peak_follows_the_options(name: str, options: dict[str, Any], phase: str, measure_peak: Any, make: Any) -> None:
    implementation, size = make(f"{name}:reference"), (1, 4, 2048, 32, 32)
    run = calls(implementation, size, torch.float32, **options)[phase]
    run()
    assert measure_peak(run) == pytest.approx(implementation.spec.cost(*size, phase, **options).peak, rel=0.1)


@pytest.mark.parametrize("size", [(1, 2, 2048, 32, 32), (2, 3, 1024, 32, 8), (1, 2, 2048, 16, 128)], ids=str)
@pytest.mark.parametrize("options", [{"importance": True}, {"self": "excluded"}, {"self": "learned"}], ids=str)
def test_peak_of_what_is_taken_in_float32_in_half_precision(
    options: dict[str, Any], size: tuple[int, ...], measure_peak: Any, make: Any
) -> None:
    implementation = make("anchor:reference")
    run = calls(implementation, size, torch.bfloat16, **options)["train"]
    run()
    predicted = implementation.spec.cost(*size, "train", itemsize=2, **options).peak
    assert measure_peak(run) == pytest.approx(predicted, rel=0.1)


@pytest.mark.parametrize("size", [(1, 4, 2048, 32, 32), (1, 8, 32768, 16, 64), (1, 2, 16384, 64, 256)], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {}, {"importance": True}, {"self": "excluded"}, {"bias": True, "per_head": True},
        {"importance": True, "self": "excluded", "logits": "cosine"},
    ],
    ids=str,
)  # fmt: skip
def test_blocks_of_tokens_cost_what_is_declared(
    options: dict[str, Any], size: tuple[int, ...], measure_peak: Any, count_flops: Any, make: Any
) -> None:
    implementation = make("anchor:chunked")
    for phase, run in calls(implementation, size, torch.float32, **options).items():
        declared = implementation.spec.cost(*size, phase, backend="chunked", **options)
        assert count_flops(run) == declared.flops
        if phase != "backward":  # its graph is gone
            assert measure_peak(run) == pytest.approx(declared.peak, rel=0.1)


@phases
def test_growth_is_as_declared(variant: Any, phase: str) -> None:
    definition, (n, m, d) = variant.spec, (2**26, 2**9, 4)

    def slope(what: str, axis: str) -> float:
        larger = definition.cost(1, 1, 2 * n if axis == "n" else n, d, 2 * m if axis == "m" else m, phase)
        return math.log2(getattr(larger, what) / getattr(definition.cost(1, 1, n, d, m, phase), what))

    declared = definition.exponents
    assert slope("flops", "n") == pytest.approx(declared.flops_n, abs=0.1)
    assert slope("flops", "m") == pytest.approx(declared.flops_m, abs=0.1)
    assert slope("peak", "n") == pytest.approx(declared.peak_n, abs=0.1)
    assert slope("peak", "m") == pytest.approx(declared.peak_m, abs=0.1)


def test_bytes_are_inputs_and_outputs_once(variant: Any) -> None:
    b, h, n, d, m = 2, 3, 64, 16, 8
    definition, item = variant.spec, 4
    tensor, read = b * h * n * d * item, 2 if definition.shares_query_key else 3
    if definition.floor:
        read = 1  # v alone
    core = variant.build(h, n, d, m)
    weights = item * sum(p.numel() for p in core.parameters())
    fixed = item * sum(x.numel() for x in core.buffers())  # read, and given no gradient
    moved = {phase: definition.cost(b, h, n, d, m, phase).bytes for phase in PHASES}
    assert moved["forward"] == (read + 1) * tensor + weights + fixed
    assert moved["backward"] == (2 * read + 1) * tensor + 2 * weights + fixed
    assert moved["train"] == (2 * read + 2) * tensor + 2 * weights + fixed


@pytest.mark.parametrize("sharing", ["none", "headwise", "key_value", "layerwise"])
def test_linformer_counts_its_parameters(sharing: str, make: Any) -> None:
    core = make("linformer:reference").build(3, 64, 16, 8, sharing=sharing)
    weights = sum(p.numel() for p in core.parameters())
    cost = attentions.spec("linformer").cost(2, 3, 64, 16, 8, sharing=sharing)
    assert cost.bytes == 4 * (4 * 2 * 3 * 64 * 16 + weights)


@pytest.mark.parametrize("logits", ["dot", "cosine"])
def test_anchor_counts_its_parameters(logits: str, make: Any) -> None:
    core = make("anchor:reference").build(3, 64, 16, 8, logits=logits)
    weights = sum(p.numel() for p in core.parameters())
    cost = attentions.spec("anchor").cost(2, 3, 64, 16, 8, logits=logits)
    assert cost.bytes == 4 * (3 * 2 * 3 * 64 * 16 + weights)


def test_exact_attention_counts_recomputation(exact: Any) -> None:
    b, h, n, d = 1, 2, 64, 16
    forward, backward, train = (exact.spec.cost(b, h, n, d, phase=phase).flops for phase in PHASES)
    assert forward == 4 * b * h * n * n * d
    assert backward == (2 if exact.spec.name == "full" else 2.5) * forward
    assert train == forward + backward


def test_a_fused_backend_needs_less_memory_than_its_reference(exact: Any) -> None:
    if exact.backend.peak is None:
        pytest.skip("no figure of its own")
    for phase in PHASES:
        own = exact.spec.cost(1, 2, 4096, 64, phase=phase, backend=exact.backend.name)
        assert 0 < own.peak < exact.spec.cost(1, 2, 4096, 64, phase=phase).peak


def test_cost_refuses_what_it_does_not_know(variant: Any) -> None:
    with pytest.raises(attentions.AttentionError, match="phase 'sideways' is not one of forward, backward, train"):
        variant.spec.cost(1, 1, 8, 8, 2, "sideways")
    with pytest.raises(attentions.AttentionError, match=r"unknown backend of .* 'nope'"):
        variant.spec.cost(1, 1, 8, 8, 2, backend="nope")
    with pytest.raises(attentions.AttentionError, match="unknown option"):
        variant.spec.cost(1, 1, 8, 8, 2, nope=1)


def test_a_variant_without_a_model_says_so() -> None:
    bare = attentions.Spec(name="bare", title="x", backends=(attentions.Backend("reference", lambda q, k, v: v),))
    with pytest.raises(attentions.AttentionError, match="bare declares no cost model"):
        bare.cost(1, 1, 8, 8)

"""Values of the anchor kernels under Triton's interpreter; run by test_anchor.py in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from problems import Operators, Problem, distance, gradients
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from attentions.kernels.anchor import choices, devices, passes, plan
from attentions.kernels.anchor.operators import anchor_attention, anchor_attention_fused
from attentions.layer import MultiHeadAttention
from attentions.variants.anchor import reference

# Times the error of the eager reference in the same dtype. The interpreter cuts float32 to bfloat16 by truncation, not
# rounding, which makes errors of one sign that add up: allow for it here; on a GPU the limit is that of float16.
AGREEMENT = {torch.float32: 3.0, torch.float16: 1.5, torch.bfloat16: 8.0}

PROBLEMS = [
    Problem(2, 2, 100, 32, 10),  # ragged in n and m
    Problem(1, 2, 96, 64, 64, torch.float16),  # whole tiles, nothing padded
    Problem(1, 1, 70, 80, 33, torch.bfloat16, "tokens"),
    Problem(1, 2, 40, 96, 8, torch.float16),
    Problem(2, 1, 1, 32, 1, torch.float16),  # one token, one anchor
    Problem(1, 1, 50, 128, 30, torch.bfloat16),
    Problem(1, 1, 20, 64, 300, torch.bfloat16, "tokens"),
    Problem(1, 1, 20, 128, 512, torch.float16),  # blocks of anchors
    Problem(1, 1, 40, 64, 40),  # float32 in blocks
    Problem(1, 2, 50, 33, 20, torch.float16, "tokens"),  # padded heads
    Problem(1, 2, 30, 1, 3),
]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """All outputs and workspaces start as NaN."""
    monkeypatch.setattr(
        plan, "allocate", lambda *shape, **keywords: torch.empty_strided(*shape, **keywords).fill_(float("nan"))
    )


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Cut every problem into given splits, which the heuristic would do for large ones only."""
    heuristic = choices.default_choice

    def use(splits: int, chunks: int) -> None:
        def choose(kind: Any, **keywords: Any) -> choices.Choice:
            return replace(heuristic(kind, **keywords), splits=splits, chunks=chunks)

        monkeypatch.setattr(choices, "default_choice", choose)

    return use


def given_to_kernels(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """By name, the tensors that plans run on from now on."""
    seen: dict[str, Tensor] = {}
    run = plan.Plan.run

    def watched(self: plan.Plan, given: dict[str, Tensor]) -> list[Any]:
        seen.update(given)
        return run(self, given)

    monkeypatch.setattr(plan.Plan, "run", watched)
    return seen


def check(problem: Problem, **settings: Any) -> None:
    for name, (error, eager) in problem.errors(lambda *x: anchor_attention(*x, **settings)).items():
        assert error <= AGREEMENT[problem.dtype] * max(eager, torch.finfo(problem.dtype).eps), (name, error, eager)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_agrees_with_float64(problem: Problem) -> None:
    check(problem, schedule="split")


SHORT = [
    Problem(2, 2, 100, 32, 10, torch.float16),  # ragged in n and m
    Problem(1, 2, 128, 64, 64, torch.float16, "tokens"),  # whole tiles, nothing padded
    Problem(1, 3, 70, 80, 30, torch.bfloat16, "tokens"),
    Problem(2, 1, 1, 32, 1, torch.float16),
    Problem(1, 1, 50, 128, 60, torch.bfloat16),
    Problem(1, 2, 90, 40, 120, torch.float16),
]


@pytest.mark.parametrize("problem", SHORT, ids=str)
def test_single_agrees_with_float64(problem: Problem) -> None:
    assert _schedule(problem, "single") == "single"
    check(problem, schedule="single")


@pytest.mark.parametrize(("splits", "chunks"), [(2, 3), (10, 2)])  # sums in the next launch; in one of their own
def test_splits_agree_with_float64(cut: Any, splits: int, chunks: int) -> None:
    cut(splits, chunks)
    check(Problem(1, 2, 650, 32, 20, torch.float16), schedule="split")


def test_blocked_splits_agree_with_float64(cut: Any) -> None:
    cut(3, 2)
    check(Problem(1, 1, 200, 32, 130, torch.float32))


@pytest.mark.parametrize("m", [20, 64])
def test_products_by_single_warps_agree_with_float64(monkeypatch: pytest.MonkeyPatch, m: int) -> None:
    """An A100 keeps the sums as AᵀV and the degrees as columns; Hopper, as VᵀA and rows."""
    monkeypatch.setattr(devices, "INTERPRETER", replace(devices.INTERPRETER, capability=80))
    devices.device_of.cache_clear()
    for schedule in ("split", "single"):
        check(Problem(1, 2, 100, 64, m, torch.float16), schedule=schedule)
    devices.device_of.cache_clear()


def check_heads_of_their_own(problem: Problem, **settings: Any) -> None:
    """Anchors (h, m, d), different in every head, against the reference in float64."""
    k, v, anchors, g = problem.tensors()
    own = torch.stack([(1 + 0.5 * head) * anchors.roll(head, dims=1) for head in range(problem.h)])
    exact = gradients(reference, k.double(), v.double(), own.double(), g.double())
    plain = gradients(reference, k, v, own, g)
    found = gradients(lambda *x: anchor_attention(*x, **settings), k, v, own, g)
    for name, right in exact.items():
        assert found[name].shape == right.shape
        allowed = AGREEMENT[problem.dtype] * max(distance(plain[name], right, g), torch.finfo(problem.dtype).eps)
        assert distance(found[name], right, g) <= allowed, name


OF_HEADS = [
    (Problem(2, 3, 100, 32, 10), "split"),
    (Problem(2, 2, 70, 80, 33, torch.bfloat16, "tokens"), "split"),
    (Problem(2, 3, 90, 40, 30, torch.float16), "single"),
    (Problem(2, 2, 20, 128, 512, torch.float16), "split"),  # blocks of anchors
    (Problem(1, 2, 50, 33, 20, torch.float16, "tokens"), "split"),  # padded heads
]


@pytest.mark.parametrize(("problem", "schedule"), OF_HEADS, ids=str)
def test_anchors_of_each_head_agree_with_float64(problem: Problem, schedule: str) -> None:
    assert _schedule(problem, schedule) == schedule
    check_heads_of_their_own(problem, schedule=schedule)


@pytest.mark.parametrize(("splits", "chunks"), [(2, 3), (10, 2)])
def test_anchors_of_each_head_in_splits_agree_with_float64(cut: Any, splits: int, chunks: int) -> None:
    cut(splits, chunks)
    check_heads_of_their_own(Problem(2, 2, 650, 32, 20, torch.float16), schedule="split")


def test_anchors_of_each_head_in_a_layer_are_read_packed() -> None:
    """From the projection's output to the kernels and back, a learned own share after them, as by the reference."""

    def used(attention: str, dtype: torch.dtype, **options: Any) -> list[Tensor]:
        torch.manual_seed(0)
        layer = MultiHeadAttention(96, 3, attention=attention, tokens=40, anchors=9, per_head=True, **options).to(dtype)
        x = torch.randn(2, 40, 96).to(dtype).requires_grad_()
        out = layer(x)
        upstream = torch.randn(out.shape).to(dtype)  # under ones those of keys and anchors are zero, all rounding
        return [out.detach(), *torch.autograd.grad(out, (x, *layer.parameters()), upstream)]

    for options in ({}, {"self": "learned", "tempered": "head"}):
        exact, eager = (used("anchor:reference", x, **options) for x in (torch.float64, torch.float32))
        for ours, theirs, right in zip(used("anchor:triton", torch.float32, **options), eager, exact, strict=True):
            allowed = max(distance(theirs, right), torch.finfo(torch.float32).eps)
            assert distance(ours, right) <= AGREEMENT[torch.float32] * allowed


def test_schedules_are_the_same_function(cut: Any) -> None:
    """They add up in other orders, before a rounding to float16: no more than that tells them apart."""
    cut(3, 3)
    problem = Problem(1, 2, 190, 32, 20, torch.float16)
    k, v, anchors, g = problem.tensors()
    assert [_schedule(problem, name) for name in choices.SCHEDULES] == list(choices.SCHEDULES)
    split, single = (
        gradients(lambda *x, s=s: anchor_attention(*x, schedule=s), k, v, anchors, g) for s in choices.SCHEDULES
    )
    for name in split:
        assert distance(single[name], split[name].double()) < 1e-3, name


@pytest.mark.parametrize("schedule", choices.SCHEDULES)
def test_repeats_bit_for_bit(cut: Any, schedule: str) -> None:
    cut(3, 2)
    k, v, anchors, g = Problem(1, 3, 100, 32, 10, torch.float16).tensors()
    first, second = (gradients(lambda *x: anchor_attention(*x, schedule=schedule), k, v, anchors, g) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("m", [10, 80])  # 80 in float32: in blocks of anchors
def test_anchor_of_zero_degree_gives_zero(m: int) -> None:
    k, v, anchors, g = Problem(1, 1, 40, 32, m, torch.float32).tensors()
    k = k.abs()
    anchors[3] = -1e4  # its logits are far below the others': no token chooses it
    found = gradients(anchor_attention, k, v, anchors, g)
    assert all(torch.isfinite(x).all() for x in found.values())
    assert (found["anchors"][3] == 0).all()
    plain = gradients(reference, k, v, anchors, g)
    assert all(distance(found[name], plain[name].double(), g) < 1e-5 for name in found)
    without = torch.cat([anchors[:3], anchors[4:]])
    assert distance(anchor_attention(k, v, anchors), anchor_attention(k, v, without).double()) < 1e-6


def test_strided_inputs_are_read_and_written_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of a wider tensor, heads inside tokens: none of them is copied, and the output is laid out alike."""
    seen = given_to_kernels(monkeypatch)
    wide = torch.randn(2, 40, 3, 2, 48, generator=torch.Generator().manual_seed(0))
    k, v = (wide[..., i, 8:40].transpose(1, 2) for i in (0, 1))
    anchors = torch.randn(9, 32, generator=torch.Generator().manual_seed(1))
    out = anchor_attention(k, v, anchors)
    assert [seen[name].data_ptr() for name in "kv"] == [k.data_ptr(), v.data_ptr()]
    assert [seen[name].stride() for name in "kv"] == [k.stride(), v.stride()]
    assert out.transpose(1, 2).is_contiguous()
    exact = gradients(anchor_attention, k.contiguous(), v.contiguous(), anchors, torch.ones(2, 3, 40, 32))
    assert torch.equal(out, exact["out"])


def test_heads_are_padded_without_a_trace() -> None:
    """Apart and fused alike, the gradients as wide as what they belong to."""
    kv = torch.randn(2, 40, 2, 3, 36, generator=torch.Generator().manual_seed(0)).requires_grad_()
    anchors = torch.randn(9, 36, generator=torch.Generator().manual_seed(1)).requires_grad_()
    out = anchor_attention_fused(kv, anchors)
    g = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    grad, grad_anchors = torch.autograd.grad(out, (kv, anchors), g)
    k, v = (kv.detach()[:, :, i].transpose(1, 2) for i in (0, 1))
    apart = gradients(anchor_attention, k, v, anchors, g.transpose(1, 2))
    assert torch.equal(out, apart["out"].transpose(1, 2))
    assert torch.equal(grad, torch.stack([apart["k"].transpose(1, 2), apart["v"].transpose(1, 2)], 2))
    assert torch.equal(grad_anchors, apart["anchors"])
    exact = gradients(reference, k.double(), v.double(), anchors.detach().double(), g.transpose(1, 2).double())
    assert all(distance(apart[name], exact[name]) < 1e-6 for name in exact)


def test_fused_projection_is_neither_copied_nor_transposed(monkeypatch: pytest.MonkeyPatch) -> None:
    given = given_to_kernels(monkeypatch)
    kv = torch.randn(2, 40, 2, 3, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    anchors = torch.randn(9, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    out = anchor_attention_fused(kv, anchors)
    g = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    grad, grad_anchors = torch.autograd.grad(out, (kv, anchors), g)
    size, width = kv.element_size(), 3 * 32
    assert given["k"].data_ptr() == kv.data_ptr()
    assert given["v"].data_ptr() == kv.data_ptr() + width * size
    assert given["grad_k"].data_ptr() == grad.data_ptr()
    assert given["grad_v"].data_ptr() == grad.data_ptr() + width * size
    k, v = (kv.detach()[:, :, i].transpose(1, 2) for i in (0, 1))
    apart = gradients(anchor_attention, k, v, anchors, g.transpose(1, 2))
    assert torch.equal(out, apart["out"].transpose(1, 2))
    assert torch.equal(grad[:, :, 0].transpose(1, 2), apart["k"])
    assert torch.equal(grad[:, :, 1].transpose(1, 2), apart["v"])
    assert torch.equal(grad_anchors, apart["anchors"])


@pytest.mark.parametrize(
    ("backend", "dtype"), [("triton", torch.float32), ("split", torch.float32), ("single", torch.float16)]
)
def test_the_layer_copies_and_transposes_nothing(
    monkeypatch: pytest.MonkeyPatch, backend: str, dtype: torch.dtype
) -> None:
    """From the projection to the kernels and back, forward and backward; and it is the layer with the reference."""
    inner, asked = passes.inner, []

    def in_place(tensor: Tensor) -> Tensor:
        asked.append(tensor)
        assert inner(tensor) is tensor
        return tensor

    def used(attention: str, wide: torch.dtype = dtype) -> tuple[list[Tensor], Operators]:
        torch.manual_seed(0)
        layer = MultiHeadAttention(96, 3, attention=attention, tokens=40, anchors=9).to(dtype).to(wide)
        x = torch.randn(2, 40, 96).to(dtype).to(wide).requires_grad_()
        g = torch.randn(2, 40, 96).to(dtype).to(wide)
        with Operators() as seen:
            out = layer(x)
            grads = torch.autograd.grad(out, (x, *layer.parameters()), g)
        return [out.detach(), *grads], seen

    exact, _ = used("anchor:reference", torch.float64)
    eager, general = used("anchor:reference")
    assert "clone" in general.copies  # the recorder sees the copies of the general path
    monkeypatch.setattr(passes, "inner", in_place)
    found, seen = used(f"anchor:{backend}")
    assert seen.copies == []
    assert {"anchor_fused", "anchor_fused_backward"} <= set(seen.names)
    assert len(asked) == 5  # kv and the anchors forward; the gradient, kv and the anchors backward
    for ours, theirs, right in zip(found, eager, exact, strict=True):
        assert distance(ours, right) <= AGREEMENT[dtype] * max(distance(theirs, right), torch.finfo(dtype).eps)


def test_cosine_logits_reach_the_kernels_as_longer_keys() -> None:
    """In a layer, whose keys and values lie packed: as by the reference, the gradient of the temperature too."""

    def used(attention: str, dtype: torch.dtype) -> list[Tensor]:
        torch.manual_seed(0)
        layer = MultiHeadAttention(96, 3, attention=attention, tokens=40, anchors=9, logits="cosine").to(dtype)
        x = torch.randn(2, 40, 96).to(dtype).requires_grad_()
        out = layer(x)
        upstream = torch.randn(out.shape).to(dtype)  # under ones those of keys and anchors are zero, all rounding
        return [out.detach(), *torch.autograd.grad(out, (x, *layer.parameters()), upstream)]

    exact, eager = used("anchor:reference", torch.float64), used("anchor:reference", torch.float32)
    for ours, theirs, right in zip(used("anchor:triton", torch.float32), eager, exact, strict=True):
        allowed = max(distance(theirs, right), torch.finfo(torch.float32).eps)
        assert distance(ours, right) <= AGREEMENT[torch.float32] * allowed


def test_expanded_gradient_and_strided_last_dimension() -> None:
    k, v, anchors, _ = Problem(1, 2, 40, 32, 10).tensors()
    k = k.transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()
    anchor_attention(k, v, anchors).sum().backward()
    again = k.detach().contiguous().requires_grad_()
    anchor_attention(again, v, anchors).backward(torch.ones_like(v))
    assert torch.equal(k.grad, again.grad)


def test_operators_are_registered_correctly() -> None:
    """PyTorch's own checks: schema, gradient registration, fake tensors, ahead-of-time dispatch with dynamic shapes."""
    k, v, anchors, _ = Problem(1, 2, 20, 32, 5, layout="tokens").tensors()
    leaves = [x.requires_grad_() for x in (k, v, anchors)]
    torch.library.opcheck(torch.ops.attentions.anchor.default, (*leaves, "", "ieee"))
    kv = torch.randn(1, 20, 2, 2, 32, requires_grad=True)
    torch.library.opcheck(torch.ops.attentions.anchor_fused.default, (kv, leaves[2], "", "ieee"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torch_compile_makes_one_graph_of_a_call(dtype: torch.dtype) -> None:
    k, v, anchors, g = Problem(1, 2, 20, 32, 5, dtype).tensors()
    torch.compiler.reset()
    found = gradients(torch.compile(anchor_attention, backend="aot_eager", fullgraph=True), k, v, anchors, g)
    plain = gradients(anchor_attention, k, v, anchors, g)
    assert all(torch.equal(found[name], plain[name]) for name in plain)


@pytest.mark.parametrize(("m", "forward", "backward"), [(20, 8, 16), (80, 10, 30)])  # 80: in blocks of anchors
def test_flops_are_counted(m: int, forward: int, backward: int) -> None:
    k, v, anchors, g = Problem(1, 2, 20, 32, m).tensors()
    unit = 2 * 20 * m * 32
    k.requires_grad_()
    with FlopCounterMode(display=False) as counter:
        out = anchor_attention(k, v, anchors)
    assert counter.get_total_flops() == forward * unit
    with FlopCounterMode(display=False) as counter:
        out.backward(g)
    assert counter.get_total_flops() == backward * unit


def test_autocast_casts_tokens_and_keeps_anchors() -> None:
    k, v, anchors, g = Problem(1, 1, 40, 32, 10).tensors()
    anchors.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = anchor_attention(k, v, anchors)
    assert out.dtype == torch.bfloat16
    out.backward(g.bfloat16())
    assert anchors.grad is not None
    assert anchors.grad.dtype == torch.float32


def test_wrong_requests_say_what_is_valid() -> None:
    k, v, anchors, _ = Problem(1, 1, 40, 32, 10).tensors()
    for wrong, words in (
        (lambda: anchor_attention(k.double(), v.double(), anchors), "float16, bfloat16 and float32"),
        (lambda: anchor_attention(k, v[:, :, :7], anchors), r"k and v \(b, h, n, d\)"),
        (lambda: anchor_attention(k, v, anchors.expand(2, 10, 32)), r"anchors \(m, d\) or \(h, m, d\), not"),
        (lambda: anchor_attention(k, v, torch.randn(513, 32)), "1 to 512 anchors, not 513"),
        (lambda: anchor_attention(k, v, anchors, schedule="grid"), "split, single"),
        (lambda: anchor_attention(k, v, anchors, precision="fp8"), "ieee, tf32"),
        (
            lambda: anchor_attention(*(torch.randn(1, 1, 5, 130) for _ in "kv"), torch.randn(3, 130)),
            "1 to 128, not 130",
        ),
        (lambda: torch.ops.attentions.anchor(k[..., :24], v[..., :24], anchors[:, :24], "", "ieee"), "multiple of 16"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()


def _schedule(problem: Problem, asked: str) -> str:
    """What a backward pass, the more demanding one, runs when a schedule is asked for."""
    k, _, anchors, _ = problem.tensors()
    kind, parts = choices.shape_class(k, anchors, "backward"), problem.b * problem.h
    found = choices.default_choice(
        kind, n=problem.n, m=problem.m, parts=parts, device=devices.INTERPRETER, schedule=asked
    )
    return found.schedule

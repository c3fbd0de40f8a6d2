"""Sliding window: full attention under a mask, evaluated block by block and by FlexAttention's tiles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import attentions
from attentions.variants import window

SIZES = [(1, 1), (2, 1), (40, 1), (40, 7), (64, 8), (65, 8), (63, 8), (40, 38), (40, 39), (40, 400), (300, 128)]


def inputs(n: int, *, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    return tuple(torch.randn(2, 3, n, 8, dtype=dtype) for _ in range(3))


def build(n: int, reach: int, backend: str = "reference") -> Any:
    return attentions.build(f"window:{backend}", heads=3, head_dim=8, tokens=n, reach=reach)


def masked_full(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, reach: int) -> torch.Tensor:
    token = torch.arange(q.shape[-2], device=q.device)
    seen = (token.unsqueeze(-1) - token).abs() <= reach
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return torch.softmax(scores.masked_fill(~seen, -torch.inf), dim=-1) @ v


@pytest.mark.parametrize(("n", "reach"), SIZES)
def test_is_full_attention_under_a_mask(n: int, reach: int) -> None:
    q, k, v = inputs(n)
    torch.testing.assert_close(build(n, reach)(q, k, v), masked_full(q, k, v, reach))


@pytest.mark.parametrize("reach", [39, 40, 128])
def test_a_window_over_all_tokens_is_full_attention_and_says_so(reach: int) -> None:
    q, k, v = inputs(40)
    full = attentions.build("full", heads=3, head_dim=8, tokens=40)
    torch.testing.assert_close(build(40, reach)(q, k, v), full(q, k, v))
    definition = attentions.spec("window")
    work = attentions.Work(b=1, h=1, n=40, d=8, options={"reach": reach})
    assert definition.note(work) == f"full attention: a reach of {reach} holds all 40 tokens"
    assert definition.model is not None
    assert definition.model(work).flops == attentions.spec("full").cost(1, 1, 40, 8).flops


def test_a_narrower_window_says_nothing_and_differs() -> None:
    q, k, v = inputs(40)
    assert attentions.spec("window").note(attentions.Work(b=1, h=1, n=40, d=8, options={"reach": 38})) == ""
    assert not torch.allclose(build(40, 8)(q, k, v), build(40, 9)(q, k, v))


@pytest.mark.parametrize(("n", "reach"), [(11, 3), (12, 4), (13, 1)])
def test_gradients_through_the_blocks(n: int, reach: int) -> None:
    q, k, v = (x[:1, :1, :, :3].requires_grad_() for x in inputs(n))
    core = attentions.build("window:reference", heads=1, head_dim=3, tokens=n, reach=reach)
    assert torch.autograd.gradcheck(core, (q, k, v))
    expected = torch.autograd.grad(masked_full(q, k, v, reach).square().sum(), (q, k, v))
    found = torch.autograd.grad(core(q, k, v).square().sum(), (q, k, v))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_token_hears_what_is_within_reach_and_nothing_else() -> None:
    q, k, v = inputs(50)
    core = build(50, 6)
    before = core(q, k, v)
    k[:, :, 26] += 3
    v[:, :, 26] += 3
    changed = (core(q, k, v) - before).abs().amax(dim=(0, 1, 3)) > 0
    assert changed.nonzero().flatten().tolist() == list(range(20, 33))


def test_the_definitions_flops_are_those_of_the_pairs() -> None:
    for n, reach in ((40, 7), (65, 8), (40, 39), (40, 400), (5, 1)):
        token = torch.arange(n)
        pairs = int(((token.unsqueeze(-1) - token).abs() <= reach).sum())
        work = attentions.Work(b=2, h=3, n=n, d=8, options={"reach": reach})
        assert window.cost(work).flops == 4 * 2 * 3 * pairs * 8


@pytest.mark.parametrize(("n", "reach"), [(1024, 128), (1000, 128), (1024, 1), (130, 128), (1024, 300), (100, 5000)])
def test_tiles_are_those_that_hold_a_pair_of_the_window(n: int, reach: int) -> None:
    token = torch.arange(-(-n // window.TILE) * window.TILE)
    seen = (token.unsqueeze(-1) - token).abs() <= reach
    seen &= (token < n) & (token < n).unsqueeze(-1)
    met = seen.unflatten(1, (-1, window.TILE)).unflatten(0, (-1, window.TILE)).any(dim=3).any(dim=1)
    mask = window._block_mask(n, reach, torch.device("cpu"))
    assert torch.equal(mask.to_dense()[0, 0].bool(), met)
    work = attentions.Work(b=1, h=1, n=n, d=8, options={"reach": reach})
    assert window._flex_flops(work) == 4 * int(met.sum()) * window.TILE**2 * 8


def test_the_reference_computes_what_it_declares() -> None:
    q, k, v = inputs(300)
    with FlopCounterMode(display=False) as counter:
        build(300, 70)(q, k, v)
    definition = attentions.spec("window")
    assert counter.get_total_flops() == definition.cost(2, 3, 300, 8, reach=70).flops
    assert definition.model is not None
    work = attentions.Work(b=2, h=3, n=300, d=8, options={"reach": 70})
    assert definition.model(work).flops < counter.get_total_flops()  # the definition needs the window alone


def test_a_gpu_takes_flex_and_a_cpu_the_reference() -> None:
    definition, work = attentions.spec("window"), attentions.Work(b=1, h=1, n=64, d=64)
    order = {
        kind: [b.name for b in definition.candidates(work, torch.float32, torch.device(kind))]
        for kind in ("cpu", "cuda")
    }
    assert order == {"cpu": ["reference"], "cuda": ["flex", "reference"]}


@pytest.mark.slow
def test_flex_equals_the_reference() -> None:
    reason = attentions.why_unavailable("window:flex", device="cpu")
    if reason:
        pytest.skip(f"window:flex {reason}")
    q, k, v = inputs(300, dtype=torch.float32)
    with torch.no_grad():
        found = build(300, 40, "flex")(q, k, v)
    torch.testing.assert_close(found, masked_full(q, k, v, 40), rtol=1e-4, atol=1e-5)

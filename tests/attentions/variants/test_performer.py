"""Performer: the published estimator, that it is without bias, and what its random features are."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import attentions
from attentions.variants.performer import draw, reference


def inputs(n: int, *, d: int = 8, scale: float = 1.0) -> tuple[torch.Tensor, ...]:
    return tuple(scale * torch.randn(2, 3, n, d, dtype=torch.float64) for _ in range(3))


def features_of(x: torch.Tensor, omega: torch.Tensor) -> torch.Tensor:
    """Lemma 1 with the scaling x / d^¼: exp(ω·x′ − ‖x′‖²/2) / √m."""
    scaled = x / x.shape[-1] ** 0.25
    return torch.exp(scaled @ omega.T - scaled.square().sum(dim=-1, keepdim=True) / 2) / math.sqrt(len(omega))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (20, 5), (20, 64)])
def test_is_the_published_ratio(n: int, m: int) -> None:
    q, k, v = inputs(n)
    omega = draw(m, 8, orthogonal=True).double()
    kernel = features_of(q, omega) @ features_of(k, omega).transpose(-2, -1)
    expected = kernel / kernel.sum(dim=-1, keepdim=True) @ v
    torch.testing.assert_close(reference(q, k, v, omega), expected)


@pytest.mark.parametrize("orthogonal", [True, False])
def test_the_kernel_is_estimated_without_bias(orthogonal: bool) -> None:
    torch.manual_seed(0)
    q, k = (0.7 * torch.randn(6, 8, dtype=torch.float64) for _ in range(2))
    omega = torch.cat([draw(8, 8, orthogonal=orthogonal) for _ in range(4000)]).double()
    estimates = features_of(q, omega).mul(math.sqrt(len(omega)))[:, None] * features_of(k, omega).mul(
        math.sqrt(len(omega))
    )
    exact = torch.exp(q @ k.T / math.sqrt(8))
    standard_error = estimates.std(dim=-1) / math.sqrt(len(omega))
    assert ((estimates.mean(dim=-1) - exact).abs() < 5 * standard_error).all()


def test_orthogonal_features_estimate_better() -> None:
    torch.manual_seed(0)
    q, k = (0.25 * torch.randn(4, 16, dtype=torch.float64) for _ in range(2))
    exact = torch.exp(q @ k.T / 4)

    def error(orthogonal: bool) -> float:
        squares = []
        for _ in range(1000):
            omega = draw(16, 16, orthogonal=orthogonal).double()
            squares.append((features_of(q, omega) @ features_of(k, omega).T - exact).square().mean().item())
        return sum(squares) / len(squares)

    assert error(True) < 0.95 * error(False)  # theorem 2 of the paper


def test_more_features_come_closer_to_full() -> None:
    torch.manual_seed(0)
    q, k, v = inputs(64, d=16, scale=0.5)
    full = attentions.build("full", heads=3, head_dim=16, tokens=64)(q, k, v)

    def error(m: int) -> float:
        return (reference(q, k, v, draw(m, 16, orthogonal=True).double()) - full).norm().item()

    errors = [error(m) for m in (16, 256, 4096)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@pytest.mark.parametrize(("m", "d"), [(8, 8), (20, 8), (3, 8), (64, 16)])
def test_features_are_orthogonal_in_groups_with_gaussian_lengths(m: int, d: int) -> None:
    rows = draw(m, d, orthogonal=True)
    for start in range(0, m, d):
        gram = rows[start : start + d] @ rows[start : start + d].T
        torch.testing.assert_close(gram, torch.diag(gram.diagonal()), atol=1e-4, rtol=0)
    squares = torch.cat([draw(d, d, orthogonal=True) for _ in range(500)]).square().sum(dim=1)
    assert squares.mean().item() == pytest.approx(d, rel=0.1)  # chi-squared with d degrees of freedom
    assert squares.var().item() == pytest.approx(2 * d, rel=0.3)


def test_large_logits_neither_overflow_nor_divide_by_zero() -> None:
    q, k, v = (x.float() for x in inputs(16, scale=60.0))
    omega = draw(12, 8, orthogonal=True)
    out = reference(q, k, v, omega)
    assert torch.isfinite(out).all()
    assert out.abs().max() <= v.abs().max() * (1 + 1e-5)  # rows of the implied matrix still sum to one
    torch.testing.assert_close(reference(q, k, torch.ones_like(v), omega), torch.ones_like(v))


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    return attentions.build("performer", heads=2, head_dim=8, tokens=16, anchors=12, **options)


def test_features_are_a_buffer_and_stay() -> None:
    core = build()
    assert not list(core.parameters())
    assert {name: tuple(x.shape) for name, x in core.state_dict().items()} == {"features": (12, 8)}
    before = core.features.clone()
    q, k, v = (x[:, :2].float() for x in inputs(16))
    core.train()
    first, second = core(q, k, v), core(q, k, v)
    assert torch.equal(first, second)
    assert torch.equal(core.features, before)


def test_redraw_changes_the_features_in_place() -> None:
    core = build(orthogonal=False)
    buffer, before = core.features, core.features.clone()
    core.redraw()
    assert core.features is buffer
    assert not torch.allclose(buffer, before)


def test_a_copy_of_the_state_gives_the_same_output() -> None:
    one, other = build(), attentions.build("performer", heads=2, head_dim=8, tokens=16, anchors=12)
    q, k, v = (x[:, :2].float() for x in inputs(16))
    assert not torch.allclose(one(q, k, v), other(q, k, v))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(q, k, v), other(q, k, v))

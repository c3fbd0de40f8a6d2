"""Linear attention: its formula written out pair by pair, its range, and what it cannot do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import attentions
from attentions.variants.linear import positive, reference


def inputs(n: int, *, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    return tuple((scale * torch.randn(2, 3, n, 8, dtype=torch.float64)).to(dtype) for _ in range(3))


def by_pairs(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Equation 4 of the paper: a similarity for each pair of tokens, rows normalised to one."""
    similarity = (F.elu(q) + 1) @ (F.elu(k) + 1).transpose(-2, -1)
    return similarity / similarity.sum(dim=-1, keepdim=True) @ v


@pytest.mark.parametrize("n", [1, 7, 64])
def test_is_the_formula(n: int) -> None:
    q, k, v = inputs(n)
    torch.testing.assert_close(reference(q, k, v), by_pairs(q, k, v))


def test_weights_sum_to_one() -> None:
    q, k, v = inputs(20)
    torch.testing.assert_close(reference(q, k, torch.ones_like(v)), torch.ones_like(v))


def test_positive_is_elu_plus_one_to_the_last_digit() -> None:
    x = torch.linspace(-8, 8, 101, dtype=torch.float64)[None, None, None]
    torch.testing.assert_close(positive(x), F.elu(x) + 1)
    narrow = x.bfloat16()
    error = (positive(narrow).double() / (F.elu(narrow.double()) + 1) - 1).abs().max()
    assert error < 2 * torch.finfo(torch.bfloat16).eps
    assert positive(torch.tensor([[[[-20.0]]]])) > 0  # elu + 1 in float32 gives exactly zero there


def test_gradients_of_the_feature_map() -> None:
    x = torch.randn(1, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(positive, (x,))


def test_float16_does_not_overflow_over_many_tokens() -> None:
    n = 1 << 17  # 131072 features of about 1.1 sum to twice float16's largest number
    q, k, v = (torch.randn(1, 1, n, 4).half() for _ in range(3))
    v = v.abs() + 1
    out = reference(q, k, v)
    assert torch.isfinite(out).all()
    exact = reference(q.double(), k.double(), v.double())
    # features and results are rounded to 16 bits, sums are not: a few roundings, however many tokens there are
    assert (out.double() - exact).norm() / exact.norm() < 2 * torch.finfo(torch.float16).eps


def test_queries_that_reach_nothing_give_zero_and_not_nan() -> None:
    q, k, v = inputs(6, dtype=torch.float32)
    out = reference(torch.full_like(q, -200.0), k, v)
    assert torch.equal(out, torch.zeros_like(out))


def test_takes_no_m_and_no_parameters() -> None:
    core: Any = attentions.build("linear", heads=2, head_dim=8, tokens=16)
    assert not core.state_dict()
    cost = attentions.spec("linear").cost
    assert cost(1, 2, 64, 8) == cost(1, 2, 64, 8, 99)

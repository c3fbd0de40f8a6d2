"""Running sums in chunks against the same sums token by token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import attentions
from attentions import running

F64 = torch.float64
LENGTHS = (1, 2, 3, 63, 64, 65, 128, 200)


def token_by_token(weights: Tensor, v: Tensor) -> Tensor:
    """Σ_{j ≤ i} weights_ij v_j; weights (b, h, n, n), v of fewer heads."""
    v = v.repeat_interleave(weights.shape[1] // v.shape[1], dim=1)
    rows = [(weights[:, :, i, : i + 1, None] * v[:, :, : i + 1]).sum(dim=2) for i in range(v.shape[2])]
    return torch.stack(rows, dim=2)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_products_are_their_sums(n: int, kv_heads: int) -> None:
    q = torch.randn(2, 4, n, 5, dtype=F64)
    k, v = (torch.randn(2, kv_heads, n, size, dtype=F64) for size in (5, 3))
    weights = q @ k.repeat_interleave(4 // kv_heads, dim=1).mT
    torch.testing.assert_close(running.running_products(q, k, v), token_by_token(weights, v))


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_softmaxes_are_their_sums(n: int, kv_heads: int) -> None:
    a = torch.randn(2, 4, n, 5, dtype=F64)
    z, v = (torch.randn(2, kv_heads, n, size, dtype=F64) for size in (5, 3))
    weights = a.exp() @ z.exp().repeat_interleave(4 // kv_heads, dim=1).mT
    total = weights.cumsum(dim=-1).diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    torch.testing.assert_close(running.running_softmaxes(a, z, v), token_by_token(weights, v) / total)


@pytest.mark.parametrize("trend", [-40.0, 0.0, 40.0])
def test_softmaxes_of_logits_beyond_every_exponent(trend: float) -> None:
    """Logits that rise or fall by thousands over the tokens, in float32: exp of none of them is a number."""
    n = 150
    a, z = (torch.randn(1, 1, n, 5, dtype=F64) for _ in range(2))
    z = z + trend * torch.arange(n, dtype=F64).unsqueeze(-1)
    v = torch.randn(1, 1, n, 3, dtype=F64)
    logits = torch.logsumexp(a.unsqueeze(3) + z.unsqueeze(2), dim=-1)  # (b, h, i, j)
    later = torch.ones(n, n, dtype=torch.bool).triu(1)
    expected = torch.softmax(logits.masked_fill(later, -torch.inf), dim=-1) @ v
    inputs = [x.float().requires_grad_() for x in (a, z, v)]
    out = running.running_softmaxes(*inputs)
    torch.testing.assert_close(out.double(), expected, rtol=1e-3, atol=1e-3)
    out.square().sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in inputs)  # type: ignore[union-attr]


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_flops_are_what_is_counted(n: int, kv_heads: int, count_flops: Any) -> None:
    work = attentions.Work(b=2, h=4, n=n, d=3, kv_heads=None if kv_heads == 4 else kv_heads)
    q = torch.randn(2, 4, n, 5)
    k, v = (torch.randn(2, kv_heads, n, size) for size in (5, 3))
    for call, flops in (
        (running.running_products, running.products_flops),
        (running.running_softmaxes, running.softmaxes_flops),
    ):
        assert count_flops(lambda call=call: call(q, k, v)) == flops(work, m=5, e=3)

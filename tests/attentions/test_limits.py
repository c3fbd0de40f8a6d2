"""The ends of what a variant takes: an empty batch, and values whose products leave float16's range."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import attentions

N, D, M = 40, 64, 8


def test_an_empty_batch_is_an_empty_result(implementation: Any) -> None:
    """With gradients, as the last batch of a share may be."""
    implementation.skip_unless_runs(1, 2, N, D, M, dtype=torch.float32)
    _empty(implementation, gradients=True)


def test_an_empty_batch_through_a_compiled_backend(compiled: Any) -> None:
    _empty(compiled, gradients=False)


def _empty(implementation: Any, *, gradients: bool) -> None:
    core = implementation.build(2, N, D, M)
    inputs = implementation.inputs(0, 2, N, D)
    with torch.set_grad_enabled(gradients):
        out = core(*inputs)
    assert out.shape == (0, 2, N, D)
    if gradients:
        out.sum().backward()
        assert all(x.grad is None or x.grad.shape == x.shape for x in inputs)
        assert all(not p.grad.any() for p in core.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", [n for n in attentions.names() if attentions.why_unavailable(n, device="cpu") is None])
def test_an_empty_batch_through_a_layer(name: str) -> None:
    layer = attentions.MultiHeadAttention(32, 2, attention=name, tokens=N, anchors=M)
    layer(torch.zeros(0, N, 32)).sum().backward()
    assert layer(torch.zeros(0, N, 32)).shape == (0, N, 32)


SCALE = 60  # of queries and keys: q kᵀ has entries of some 10⁵, beyond 65504, and q kᵀ / √d of some 10⁴


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_large_queries_and_keys_stay_in_range(variant: Any, dtype: torch.dtype) -> None:
    """Finite where float64 is, and a mean of the values: no weight is negative or adds up to more than one.

    Weights of a 16-bit logit of 10⁴ are not float64's: it is known to 8 there. float32 has them to a thousandth.
    """
    core, exact = (variant.build(2, N, D, M, dtype=each) for each in (dtype, torch.float64))
    q, k, v = (x.detach().double() for x in variant.inputs(2, 2, N, D))
    with torch.no_grad():
        given = [(SCALE * q).to(dtype), (SCALE * k).to(dtype), v.to(dtype)]
        expected, out = exact(*(x.double() for x in given)), core(*given).double()
    assert (SCALE * q @ (SCALE * k).mT).abs().max() > torch.finfo(torch.float16).max
    assert torch.isfinite(expected).all()
    assert torch.isfinite(out).all()
    if variant.spec.exact or variant.spec.name in ("linear", "window", "anchor", "agent"):
        assert out.abs().max() <= v.abs().max() * (1 + 4 * torch.finfo(dtype).eps)
    if dtype == torch.float32:
        torch.testing.assert_close(out, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("scale", [60, 1000])
def test_linear_attention_is_right_where_its_products_are_large(scale: int) -> None:
    """It has no exponential to lose digits in: float16 is as near to float64 as with small values."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 4096, D, dtype=torch.float64) for _ in range(3))
    given = [(scale * q).half(), (scale * k).half(), v.half()]
    core = attentions.build("linear:reference", heads=2, head_dim=D, tokens=4096)
    torch.testing.assert_close(core(*given).double(), core(*(x.double() for x in given)), rtol=0, atol=2e-4)


def test_linear_attention_of_keys_that_vanish_is_zero() -> None:
    """φ(k) underflows for every key: nothing is attended to, as before, and nothing is NaN."""
    q, v = torch.randn(2, 1, 2, 9, 4).half()
    core = attentions.build("linear:reference", heads=2, head_dim=4, tokens=9)
    assert not core(q, torch.full_like(q, -50), v).any()

"""The multi-head layer around every variant."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import attentions
from attentions.layer import MultiHeadAttention


def layer_of(implementation: Any, *, dim: int = 24, heads: int = 3, tokens: int = 10, **keywords: Any) -> nn.Module:
    torch.manual_seed(0)
    layer = MultiHeadAttention(dim, heads, attention=implementation.name, tokens=tokens, anchors=4, **keywords)
    return layer.to(implementation.device)


def test_shape_and_gradients(variant: Any) -> None:
    layer = layer_of(variant)
    x = torch.randn(2, 10, 24, requires_grad=True)
    out = layer(x)
    assert out.shape == x.shape
    out.square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.parameters())


def test_projects_as_the_variant_needs(variant: Any) -> None:
    layer = layer_of(variant)
    parts = 2 if variant.spec.shares_query_key else 3
    assert layer.projection.weight.shape == (parts * 24, 24)
    assert layer.output.weight.shape == (24, 24)
    core = {f"core.{name}" for name in variant.build(3, 10, 8, 4).state_dict()}
    own = {"projection.weight", "projection.bias", "output.weight", "output.bias"}
    assert set(layer.state_dict()) == own | core


def test_is_the_core_between_its_projections(variant: Any) -> None:
    layer = layer_of(variant).double()
    x = torch.randn(2, 10, 24, dtype=torch.float64)
    parts = [
        part.view(2, 10, 3, 8).transpose(1, 2) for part in layer.projection(x).split(24, dim=-1)
    ]  # each (b, h, n, d)
    q, k, v = parts if len(parts) == 3 else (parts[0], *parts)
    expected = layer.output(layer.core(q, k, v).transpose(1, 2).reshape(2, 10, 24))
    torch.testing.assert_close(layer(x), expected)


def test_without_a_bias(variant: Any) -> None:
    layer = layer_of(variant, qkv_bias=False)
    assert layer.projection.bias is None
    assert layer.output.bias is not None


def test_default_is_anchor() -> None:
    layer = MultiHeadAttention(16, 2, tokens=8, anchors=4)
    assert layer.core.anchors.shape == (4, 8)
    assert layer(torch.randn(1, 8, 16)).shape == (1, 8, 16)


def test_options_reach_the_core() -> None:
    layer = MultiHeadAttention(16, 2, attention="nystrom", tokens=8, anchors=4, residual_kernel=5)
    assert layer.core.residual.weight.shape == (2, 1, 5, 1)


@pytest.mark.parametrize(("dim", "heads"), [(16, 3), (16, 0), (16, -2), (0, 1), (2, 4)])
def test_heads_must_divide_dim(dim: int, heads: int) -> None:
    with pytest.raises(attentions.AttentionError, match=f"dim={dim} cannot be split into heads={heads}"):
        MultiHeadAttention(dim, heads, tokens=8, anchors=4)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"attention": "ancor"}, "did you mean 'anchor'"),
        ({"attention": "anchor:nope"}, "unknown backend of anchor 'nope'"),
        ({"attention": "linformer", "sharing": "all"}, "option sharing='all' is not valid"),
        ({"anchors": None}, "anchors .* must be a whole number"),
    ],
)
def test_refuses_what_the_registry_refuses(keywords: dict[str, Any], message: str) -> None:
    given = {"tokens": 8, "anchors": 4} | keywords
    with pytest.raises(attentions.AttentionError, match=message):
        MultiHeadAttention(16, 2, **given)


class Doubled(attentions.Core):
    """A core without parameters that offers its backend's packed form."""

    def packed(self, parts: torch.Tensor) -> torch.Tensor | None:
        return self.compute.packed(parts, **self.options)


@pytest.mark.parametrize(("attention", "is_packed"), [("doubled", True), ("doubled:eager", False)])
@pytest.mark.parametrize("shared", [True, False])
def test_a_backend_may_take_the_projection_as_it_is(
    monkeypatch: pytest.MonkeyPatch, attention: str, is_packed: bool, shared: bool
) -> None:
    seen: list[torch.Tensor] = []

    def packed(parts: torch.Tensor) -> torch.Tensor:
        seen.append(parts)
        return 2 * parts[:, :, -1]

    def apart(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return 2 * v

    spec = attentions.Spec(
        name="doubled", title="twice v", module=Doubled, shares_query_key=shared,
        backends=(
            attentions.Backend("whole", apart, packed=packed), attentions.Backend("reference", apart),
            attentions.Backend("eager", apart),
        ),
    )  # fmt: skip
    monkeypatch.setitem(attentions.registry._plugins, "doubled", spec)
    torch.manual_seed(0)
    layer = MultiHeadAttention(24, 3, attention=attention, tokens=10)
    x = torch.randn(2, 10, 24)
    torch.testing.assert_close(layer(x), layer.output(2 * layer.projection(x)[..., -24:]))
    assert [tuple(parts.shape) for parts in seen] == [(2, 10, 2 if shared else 3, 3, 8)] * is_packed


def test_is_offered_at_the_top() -> None:
    assert attentions.MultiHeadAttention is MultiHeadAttention

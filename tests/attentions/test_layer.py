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


def problem_layer(**problem: Any) -> Any:
    torch.manual_seed(0)
    return MultiHeadAttention(24, 4, attention="full", tokens=10, **problem).double()


def apart(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(b, n, heads · 6) → (b, heads, n, 6)."""
    return x.unflatten(-1, (heads, 6)).transpose(1, 2)


def test_a_causal_layer_does_not_look_ahead() -> None:
    layer, x = problem_layer(causal=True), torch.randn(2, 10, 24, dtype=torch.float64)
    before = layer(x)
    x[:, 6:] += 1
    after = layer(x)
    torch.testing.assert_close(after[:, :6], before[:, :6])
    assert (after[:, 6:] - before[:, 6:]).abs().amin() > 0
    assert layer.state_dict().keys() == problem_layer().state_dict().keys()


@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_a_grouped_layer_projects_fewer_keys_and_values(kv_heads: int, causal: bool) -> None:
    layer, x = problem_layer(kv_heads=kv_heads, causal=causal), torch.randn(2, 10, 24, dtype=torch.float64)
    assert layer.projection.weight.shape == (24 + 2 * 6 * kv_heads, 24)
    q, k, v = layer.projection(x).split((24, 6 * kv_heads, 6 * kv_heads), dim=-1)
    repeated = (apart(y, kv_heads).repeat_interleave(4 // kv_heads, dim=1) for y in (k, v))
    out = nn.functional.scaled_dot_product_attention(apart(q, 4), *repeated, is_causal=causal)
    torch.testing.assert_close(layer(x), layer.output(out.transpose(1, 2).flatten(2)))


@pytest.mark.parametrize("kv_heads", [None, 2])
@pytest.mark.parametrize("length", [7, 10])
def test_a_crossing_layer_takes_keys_and_values_from_its_context(kv_heads: int | None, length: int) -> None:
    layer = problem_layer(kv_tokens=length, kv_heads=kv_heads)
    groups = kv_heads or 4
    x, context = torch.randn(2, 10, 24, dtype=torch.float64), torch.randn(2, length, 24, dtype=torch.float64)
    k, v = layer.context_projection(context).chunk(2, dim=-1)
    repeated = (apart(y, groups).repeat_interleave(4 // groups, dim=1) for y in (k, v))
    out = nn.functional.scaled_dot_product_attention(apart(layer.projection(x), 4), *repeated)
    torch.testing.assert_close(layer(x, context), layer.output(out.transpose(1, 2).flatten(2)))
    layer(x, context).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


def test_a_context_is_for_a_layer_that_crosses() -> None:
    x = torch.randn(1, 10, 24, dtype=torch.float64)
    with pytest.raises(attentions.AttentionError, match=r"built with kv_tokens, .* layer\(x, context\)"):
        problem_layer(kv_tokens=7)(x)
    with pytest.raises(attentions.AttentionError, match="is self-attention: build it with kv_tokens"):
        problem_layer()(x, x)


@pytest.mark.parametrize("kv_tokens", [7, 10])
def test_anchor_has_no_crossing_layer(kv_tokens: int) -> None:
    with pytest.raises(attentions.AttentionError, match="other keys have no meaning"):
        MultiHeadAttention(24, 4, attention="anchor", tokens=10, anchors=4, kv_tokens=kv_tokens)


def test_a_swap_leaves_a_layer_that_it_would_change() -> None:
    model = nn.Sequential(problem_layer(kv_heads=2))
    with pytest.raises(attentions.AttentionError, match="is grouped or cross attention"):
        attentions.swap(model, "full", tokens=10)


def test_a_causal_layer_stays_causal_when_it_is_swapped() -> None:
    model, x = nn.Sequential(problem_layer(causal=True)), torch.randn(2, 10, 24, dtype=torch.float64)
    before = model(x)
    attentions.swap(model, "full", tokens=10)
    torch.testing.assert_close(model(x), before)


def test_a_causal_anchor_layer_by_its_bare_name() -> None:
    torch.manual_seed(0)
    layer, x = MultiHeadAttention(24, 4, tokens=70, anchors=5, causal=True), torch.randn(2, 70, 24)
    with torch.no_grad():
        torch.testing.assert_close(layer(x)[:, :30], layer(x[:, :30]))

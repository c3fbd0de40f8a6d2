"""Linformer: what its projections are, how they are shared, and when it is exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

import attentions
from attentions.variants.linformer import SHARING, Linformer, reference, share_layers

SHAPES = {
    "none": {"key_projection": (3, 4, 10), "value_projection": (3, 4, 10)},
    "headwise": {"key_projection": (4, 10), "value_projection": (4, 10)},
    "key_value": {"projection": (4, 10)},
    "layerwise": {"projection": (4, 10)},
}


def build(sharing: str = "headwise", *, heads: int = 3, tokens: int = 10, anchors: int = 4) -> Any:
    return attentions.build("linformer", heads=heads, head_dim=8, tokens=tokens, anchors=anchors, sharing=sharing)


def inputs(n: int, *, heads: int = 3) -> tuple[torch.Tensor, ...]:
    return tuple(torch.randn(2, heads, n, 8, dtype=torch.float64) for _ in range(3))


@pytest.mark.parametrize("sharing", SHARING)
def test_parameters(sharing: str) -> None:
    assert {name: tuple(p.shape) for name, p in build(sharing).named_parameters()} == SHAPES[sharing]


@pytest.mark.parametrize("sharing", SHARING)
def test_identity_projections_give_full_attention(sharing: str) -> None:
    core = build(sharing, anchors=10).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.copy_(torch.eye(10).expand_as(parameter))
    q, k, v = inputs(10)
    full = attentions.build("full", heads=3, head_dim=8, tokens=10)
    torch.testing.assert_close(core(q, k, v), full(q, k, v))


@pytest.mark.parametrize("sharing", SHARING)
def test_is_the_formula(sharing: str) -> None:
    core = build(sharing).double()
    parameters = dict(core.named_parameters())
    e = parameters.get("key_projection", parameters.get("projection"))
    f = parameters.get("value_projection", parameters.get("projection"))
    q, k, v = inputs(10)
    for i in range(3):
        ei, fi = (x[i] if x.dim() == 3 else x for x in (e, f))
        weights = torch.softmax(q[:, i] @ (ei @ k[:, i]).transpose(-2, -1) / 8**0.5, dim=-1)
        torch.testing.assert_close(core(q, k, v)[:, i], weights @ (fi @ v[:, i]))


@pytest.mark.parametrize("sharing", SHARING)
def test_sharing_does_not_mix_keys_and_values(sharing: str) -> None:
    core = build(sharing).double()
    q, k, v = inputs(10)
    assert not torch.allclose(core(q, k, v), core(q, v, k))


@pytest.mark.parametrize("sharing", SHARING)
def test_a_shorter_input_uses_the_first_columns(sharing: str) -> None:
    core = build(sharing).double()
    q, k, v = inputs(7)
    pad = [nn.functional.pad(x, (0, 0, 0, 3)) for x in (q, k, v)]
    torch.testing.assert_close(core(q, k, v), core(*pad)[:, :, :7])  # a zero token adds nothing to a mixture


def test_a_longer_input_names_both_lengths() -> None:
    with pytest.raises(attentions.AttentionError, match=r"11 tokens .* built for at most 10; build it with tokens=11"):
        build()(*(x.float() for x in inputs(11)))


def test_layers_share_one_projection() -> None:
    model = nn.ModuleList([build("layerwise"), nn.Sequential(build("layerwise")), build("headwise")])
    assert len({id(p) for p in model.parameters()}) == 4
    assert share_layers(model) == 2
    assert len({id(p) for p in model.parameters()}) == 3
    assert model[0].projection is model[1][0].projection
    assert "1.0.projection" in model.state_dict()
    out = sum(layer(*(x.float() for x in inputs(10))).sum() for layer in (model[0], model[1][0]))
    out.backward()
    assert model[0].projection.grad is model[1][0].projection.grad is not None


def test_layers_of_different_sizes_cannot_share() -> None:
    model = nn.ModuleList([build("layerwise"), build("layerwise", tokens=12)])
    with pytest.raises(attentions.AttentionError, match=r"not \(4, 10\) and \(4, 12\)"):
        share_layers(model)
    assert share_layers(nn.Linear(2, 2)) == 0


def test_starts_at_the_size_of_the_release() -> None:
    torch.manual_seed(0)
    core = build(tokens=512, anchors=64)
    for parameter in core.parameters():
        assert parameter.var().item() == pytest.approx(1 / (512 + 64), rel=0.05)
        assert parameter.mean().item() == pytest.approx(0, abs=1e-3)


def test_reads_parameters_in_the_inputs_precision() -> None:
    q, k, v = (x.bfloat16() for x in inputs(10))
    assert build()(q, k, v).dtype == torch.bfloat16


def test_shapes_are_enforced_under_pytest() -> None:
    q, k, v = inputs(10)
    e, f = torch.randn(4, 10, dtype=torch.float64), torch.randn(4, 9, dtype=torch.float64)
    with pytest.raises(TypeCheckError, match="parameter 'f'"):
        reference(q, k, v, e, f)
    assert isinstance(build(), Linformer)

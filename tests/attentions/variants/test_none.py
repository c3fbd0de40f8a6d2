"""No attention: the mean over the tokens, whatever q and k are."""

from __future__ import annotations

import torch

import attentions

B, H, N, D = 2, 3, 21, 8


def draw(seed: int) -> torch.Tensor:
    return torch.randn(B, H, N, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_token_receives_the_mean_of_v() -> None:
    q, k, v = map(draw, range(3))
    core = attentions.build("none", heads=H, head_dim=D, tokens=N)
    torch.testing.assert_close(core(q, k, v), v.mean(dim=-2, keepdim=True).expand_as(v))
    core(q, k, v)[:, :, 0].zero_()  # an output of its own: tokens share no memory


def test_is_full_attention_of_equal_scores_and_anchor_attention_of_one_anchor() -> None:
    q, k, v = map(draw, range(3))
    out = attentions.build("none", heads=H, head_dim=D, tokens=N)(q, k, v)
    full = attentions.build("full", heads=H, head_dim=D, tokens=N)
    anchor = attentions.build("anchor", heads=H, head_dim=D, tokens=N, anchors=1).double()
    torch.testing.assert_close(full(0 * q, k, v), out)
    torch.testing.assert_close(anchor(q, k, v), out)


def test_looks_at_neither_q_nor_k() -> None:
    v = draw(0)
    core = attentions.build("none", heads=H, head_dim=D, tokens=N)
    unused = torch.full_like(v, torch.nan)
    torch.testing.assert_close(core(unused, unused, v), core(v, v, v))


def test_a_layer_keeps_the_parameters_of_full() -> None:
    shapes = [
        {name: p.shape for name, p in attentions.MultiHeadAttention(24, 3, attention=a, tokens=N).named_parameters()}
        for a in ("none", "full")
    ]
    assert shapes[0] == shapes[1]

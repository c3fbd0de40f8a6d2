"""Attention with layers of their own for query, key and value, as transformers has it: read, proven, replaced."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import attentions
from attentions import hosts, separate
from attentions.proof import proven

DIM, HEADS = 12, 3


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)


class Decoder(nn.Module):
    """Causal, returns its output and weights, and insists on a mask's place."""

    def __init__(self, *, causal: bool = True, bias: bool = True, drop: float = 0.0) -> None:
        super().__init__()
        self.q_proj, self.v_proj, self.out_proj = (nn.Linear(DIM, DIM, bias=bias) for _ in range(3))
        self.k_proj = nn.Linear(DIM, DIM, bias=False)
        self.num_heads, self.causal, self.attention_dropout = HEADS, causal, drop

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None, **named: Any) -> tuple[Tensor, None]:
        out = attend(*(p(hidden_states) for p in (self.q_proj, self.k_proj, self.v_proj)), causal=self.causal)
        return self.out_proj(functional.dropout(out, self.attention_dropout, self.training)), None


class Conv1D(nn.Module):
    """As transformers has it: x @ weight + bias."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.randn(nf))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Joined(nn.Module):
    """Causal, with one transposed projection; returns a tuple of one."""

    def __init__(self) -> None:
        super().__init__()
        self.c_attn, self.c_proj, self.num_heads = Conv1D(3 * DIM, DIM), Conv1D(DIM, DIM), HEADS

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor]:
        return (self.c_proj(attend(*self.c_attn(hidden_states).chunk(3, -1), causal=True)),)


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(DIM, DIM) for _ in range(3))
        self.num_attention_heads = HEADS

    def forward(self, x: Tensor) -> Tensor:
        return attend(self.query(x), self.key(x), self.value(x), causal=False)


class Outer(nn.Module):
    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.dense = nn.Linear(DIM, DIM)
        if norm:
            self.norm = nn.LayerNorm(DIM)


class Nested(nn.Module):
    """Both directions, in two parts, and returns a tensor."""

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.attention, self.output = Inner(), Outer(norm=norm)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.output.dense(self.attention(hidden_states))


class Rotary(Decoder):
    def forward(self, hidden_states: Tensor, position_embeddings: Tensor, attention_mask: Tensor | None) -> Any:  # type: ignore[override]
        raise NotImplementedError


class Model(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.block = nn.Module()
        self.block.attn = attention

    def forward(self, x: Tensor, **named: Any) -> Any:
        mask = {"attention_mask": None} if separate.MASK in separate.needed(self.block.attn) else {}
        return self.block.attn(x, **mask, **named)


def first(found: Any) -> Tensor:
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("attention", [Decoder(), Decoder(bias=False), Decoder(causal=False), Joined(), Nested()],
                         ids=["decoder", "without bias", "encoder", "joined", "nested"])  # fmt: skip
def test_softmax_attention_in_its_place_computes_the_same(attention: nn.Module) -> None:
    """Causal or not, with its weights, and returns what it returned."""
    model, x = Model(attention).double().eval(), torch.randn(2, 7, DIM, dtype=torch.float64)
    before = model(x)
    report = attentions.swap(model, "full", tokens=7)
    assert report.modules[0].kept == ("query, key", "value", "output")
    after = model(x)
    torch.testing.assert_close(first(after), first(before), rtol=1e-10, atol=1e-12)
    assert type(after) is type(before)
    if isinstance(before, tuple):
        assert len(after) == len(before)
    layer = model.block.attn
    assert isinstance(layer, separate.SeparateAttention)
    assert layer.causal == getattr(attention, "causal", isinstance(attention, Joined))


def test_a_causal_layer_stays_causal_when_it_is_swapped_again() -> None:
    model, x = Model(Decoder()).double().eval(), torch.randn(2, 7, DIM, dtype=torch.float64)
    before = model(x)
    attentions.swap(model, "full", tokens=7)
    attentions.swap(model, "flash", tokens=7)
    torch.testing.assert_close(first(model(x)), first(before), rtol=1e-10, atol=1e-12)
    own = nn.Sequential(attentions.MultiHeadAttention(DIM, HEADS, attention="full", tokens=7, causal=True)).double()
    expected = own(x)
    attentions.swap(own, "flash", tokens=7)
    torch.testing.assert_close(own(x), expected, rtol=1e-10, atol=1e-12)


def test_a_layer_with_other_keys_is_left() -> None:
    layer = attentions.MultiHeadAttention(DIM, HEADS, attention="full", tokens=7, kv_heads=1)
    with pytest.raises(attentions.AttentionError, match="is grouped or cross attention"):
        attentions.swap(nn.Sequential(layer), "flash", tokens=7)


def test_a_variant_that_is_not_causal_says_so() -> None:
    with pytest.raises(attentions.AttentionError, match="linformer"):
        attentions.swap(Model(Decoder()), "linformer", tokens=7, anchors=4)


@pytest.mark.parametrize(
    ("attention", "why"),
    [
        (Rotary(), "is called with more than x: position_embeddings"),
        (Nested(norm=True), "computes more than softmax attention, with the parameters output.norm.weight"),
    ],
)
def test_what_is_more_is_refused(attention: nn.Module, why: str) -> None:
    with pytest.raises(attentions.AttentionError, match=why):
        attentions.swap(Model(attention), "flash", tokens=7)


def test_what_computes_something_else_is_refused_with_the_figure() -> None:
    class Shifted(Decoder):
        def forward(self, hidden_states: Tensor, attention_mask: Tensor | None, **named: Any) -> tuple[Tensor, None]:
            return super().forward(hidden_states, attention_mask)[0].roll(1, 1), None

    source = hosts.read(Shifted())
    assert isinstance(source, hosts.Source)
    said = proven(Shifted(), source, tokens=7)
    assert isinstance(said, str)
    assert "is not softmax attention: its output differs by" in said


def test_a_mask_or_a_cache_is_refused_and_what_is_idle_is_not() -> None:
    model = Model(Decoder())
    attentions.swap(model, "flash", tokens=7)
    x, layer = torch.randn(1, 7, DIM), model.block.attn
    expected = first(layer(x))
    told: dict[str, Any] = {"cache_position": torch.arange(7), "past_key_values": None, "use_cache": False}
    torch.testing.assert_close(first(layer(x, None, **told)), expected)
    for named in ({"attention_mask": torch.ones(7, 7)}, {"past_key_values": object()}, {"output_attentions": True}):
        with pytest.raises(attentions.AttentionError, match=next(iter(named))):
            layer(x, **named)


def test_dropout_is_lost_and_told() -> None:
    report = attentions.swap(Model(Decoder(drop=0.1)), "flash", tokens=7)
    assert report.modules[0].lost == ("dropout 0.1 in training",)

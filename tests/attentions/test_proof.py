"""What only looks like softmax attention is not swapped: by what it computes, not by the names of its parts."""

from __future__ import annotations

import pytest
import torch
from attending import DIM, HEADS, Attend, N, tree
from torch import Tensor, nn

import attentions
from attentions import AttentionError


class Channels(Attend):
    """As timm's ChannelAttention of DaViT: the parts of softmax attention, attending over channels."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(self.scale * q.mT @ k, dim=-1)
        return self.proj((weights @ v.mT.mT.mT).mT.transpose(1, 2).flatten(2))


class Normed(Attend):
    """A norm of queries and keys without parameters."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = (nn.functional.normalize(part, dim=-1) for part in (q, k))
        return self.proj((torch.softmax(q @ k.mT, dim=-1) @ v).transpose(1, 2).flatten(2))


class Interleaved(Attend):
    """Heads outermost in `qkv`: q, k and v of a head lie together."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (self.num_heads, 3, -1)).permute(3, 0, 2, 1, 4).unbind(0)
        return self.proj((torch.softmax(self.scale * q @ k.mT, dim=-1) @ v).transpose(1, 2).flatten(2))


class Windowed(Attend):
    """Attends within windows of 24 tokens: no different from softmax attention where the input is shorter."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        return torch.cat([super(Windowed, self).forward(part) for part in x.split(24, dim=1)], dim=1)


class TrainedOtherwise(Attend):
    """Differs in training alone: it drops queries."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        return super().forward(nn.functional.dropout(x, 0.3, self.training))


class Causal(nn.MultiheadAttention):
    """A subclass of torch's that masks by itself."""

    def forward(self, query: Tensor, *others: Tensor, **asked: object) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        mask = nn.Transformer.generate_square_subsequent_mask(query.shape[1], dtype=query.dtype)
        return super().forward(query, *others, attn_mask=mask)


class Silent(Channels):
    """Its weights are zero, so that whatever it computes is zero, as what anything else computes with them."""

    def __init__(self) -> None:
        super().__init__()
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


@pytest.mark.parametrize(
    "module",
    [
        Channels(), Normed(), Interleaved(), Windowed(), TrainedOtherwise().eval(), Silent(),
        Causal(DIM, HEADS, batch_first=True),
    ],
    ids=lambda module: type(module).__name__,
)  # fmt: skip
def test_what_only_looks_like_softmax_attention_is_refused_with_the_figure(module: nn.Module) -> None:
    model = nn.ModuleDict({"only": module, "fine": Attend()})
    state, drawn = {name: p.clone() for name, p in model.state_dict().items()}, torch.get_rng_state()
    with pytest.raises(AttentionError, match=r"only cannot be replaced.*differs by \d.* of the largest"):
        attentions.swap(model, "anchor", anchors=4, tokens=64, where="only")
    assert torch.equal(torch.get_rng_state(), drawn), "a trial leaves the user's random numbers alone"
    report = attentions.swap(model, "full", tokens=64)
    assert [name for name, _ in report.left] == ["only"]
    assert all(torch.equal(state[name], p) for name, p in model["only"].state_dict(prefix="only.").items())


class Grid(Attend):
    """As attentions over pictures of tokens: (b, rows, columns, dim), one sequence or each row its own."""

    def __init__(self, how: str, *, flat: bool) -> None:
        super().__init__()
        self.how, self.flat = how, flat

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        if x.dim() == 3 and not self.flat:
            raise ValueError("not enough values to unpack (expected 4, got 3)")
        if self.how == "columns":
            return self.forward_as(x.transpose(1, 2), "rows").transpose(1, 2) if x.dim() == 4 else super().forward(x)
        return self.forward_as(x, self.how)

    def forward_as(self, x: Tensor, how: str) -> Tensor:
        sequences = x if x.dim() == 3 else x.flatten(1, -2) if how == "joined" else x.flatten(0, -3)
        return super().forward(sequences).reshape(x.shape)


@pytest.mark.parametrize("how", ["joined", "rows"])
@pytest.mark.parametrize("flat", [True, False])
def test_inputs_of_four_dimensions_are_taken_as_they_were(how: str, flat: bool) -> None:
    model = nn.ModuleDict({"attn": Grid(how, flat=flat).double()})
    x = torch.randn(2, 3, 7, DIM, dtype=torch.float64)
    before = model["attn"](x)
    attentions.swap(model, "full", tokens=N)
    torch.testing.assert_close(model["attn"](x), before)


def test_four_dimensions_that_nobody_asked_for_are_answered() -> None:
    for flat in (True, False):
        model = nn.ModuleDict({"attn": Grid("columns", flat=flat)})
        with pytest.raises(AttentionError, match="random inputs of four dimensions"):
            attentions.swap(model, "full", tokens=N)
    model = tree()
    attentions.swap(model, "full", tokens=N)
    with pytest.raises(AttentionError, match="not a tensor of 4 dimensions"):
        model[0]["attn"](torch.randn(2, 3, 7, DIM))  # type: ignore[index]


def test_hooks_are_not_called_by_a_trial_and_are_named_as_lost() -> None:
    model, heard = tree(), []
    model[0]["attn"].register_forward_hook(lambda *call: heard.append(call))  # type: ignore[index]
    report = attentions.swap(model, "full", tokens=N)
    assert [module.lost for module in report.modules] == [("1 hook",), ()]
    assert not heard


def test_the_cross_attention_of_a_decoder_stays() -> None:
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(DIM, 4, 64, batch_first=True), 2)
    report = attentions.swap(decoder, "full", tokens=N)
    assert [module.name for module in report.modules] == ["layers.0.self_attn", "layers.1.self_attn"]
    assert [why for _, why in report.left] == [
        "MultiheadAttention attends from one sequence to another (cross-attention)"
    ] * 2


def test_a_model_on_the_meta_device_is_tried_by_what_it_computes() -> None:
    with torch.device("meta"):
        model = nn.ModuleDict({"a": Attend(), "b": Channels()})
    report = attentions.swap(model, "full", tokens=N)
    assert [module.name for module in report.modules] == ["a"]
    assert all(parameter.is_meta for parameter in model.parameters())

"""A model after a swap: it pickles, copies and compiles, and refuses a mask in eval mode too."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from attending import DIM, N, tokens
from torch import nn

import attentions
from attentions import AttentionError


@pytest.mark.parametrize("name", [n for n in attentions.names() if attentions.why_unavailable(n, device="cpu") is None])
def test_a_swapped_model_pickles_and_copies(name: str) -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(DIM, 4, 64, dropout=0.0, batch_first=True), 2).eval()
    attentions.swap(encoder, name, tokens=N, anchors=4)
    expected = encoder(tokens())
    file = io.BytesIO()
    torch.save(encoder, file)
    loaded = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    assert torch.equal(loaded(tokens()), expected)
    copied = copy.deepcopy(encoder)
    assert torch.equal(copied(tokens()), expected)
    copied.layers[0].self_attn.projection.weight.data.zero_()
    assert torch.equal(encoder(tokens()), expected), "a copy shares no weights"


@pytest.mark.parametrize("name", ["full", "anchor", "anchor:reference"])
def test_a_swapped_model_compiles(name: str) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(DIM, 4, 64, dropout=0.0, batch_first=True).eval()
    attentions.swap(layer, name, tokens=N, anchors=4)
    expected = layer(tokens())
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens()), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(copy.deepcopy(layer)(tokens()), expected), "compiled and copied"


def test_a_named_backend_pickles() -> None:
    core = attentions.build("anchor:sdpa", heads=3, head_dim=16, tokens=N, anchors=4)
    again = pickle.loads(pickle.dumps(core))
    assert (again.compute.definition, again.compute.backend) == (core.compute.definition, core.compute.backend)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gradients", [True, False])
def test_a_mask_is_refused_in_eval_mode_where_torch_looks_for_a_way_round(bias: bool, gradients: bool) -> None:
    """An even number of heads and a padding mask: the encoder then reads the weights of its first attention."""
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(DIM, 4, 64, batch_first=True, bias=bias), 2).eval()
    attentions.swap(encoder, "full", tokens=N)
    padding = torch.zeros(2, N, dtype=torch.bool)
    padding[1, -3:] = True
    with torch.set_grad_enabled(gradients):
        for asked, why in (
            ({"src_key_padding_mask": padding}, "key_padding_mask.*takes no mask"),
            ({"mask": torch.zeros(N, N)}, "attn_mask.*takes no mask"),
            ({"is_causal": True}, "is_causal.*takes no mask"),
        ):
            with pytest.raises(AttentionError, match=why):
                encoder(tokens(), **asked)

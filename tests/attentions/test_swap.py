"""attentions.swap: what is kept computes what it did, what is merged is as defined, and errors name things."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
from attending import DIM, HEADS, Attend, N, through, tokens, tree
from torch import Tensor, nn

import attentions
from attentions import AttentionError, MultiHeadAttention
from attentions.hosts import BlockAttention
from attentions.merge import MERGES, shared_projection
from attentions.swap import Report


@pytest.mark.parametrize("attention", ["full", "flash"])
@pytest.mark.parametrize("bias", [True, False])
def test_exact_attention_computes_what_was_there(attention: str, bias: bool) -> None:
    model = tree(bias=bias)
    before = through(model, tokens())
    report = attentions.swap(model, attention, tokens=N)
    torch.testing.assert_close(through(model, tokens()), before, rtol=1e-5, atol=1e-6)
    assert [module.name for module in report.modules] == ["0.attn", "1.attn"]
    assert report.parameters[0] == report.parameters[1]
    assert all(module.kept == ("query, key", "value", "output") and not module.fresh for module in report.modules)
    assert isinstance(model[0]["attn"], BlockAttention)  # type: ignore[index]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_an_encoder_of_torch_computes_what_it_did(batch_first: bool, training: bool, bias: bool) -> None:
    """In eval mode too, where torch's layer has a fused way round its attention."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(DIM, 4, 64, dropout=0.0, batch_first=batch_first, bias=bias)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).train(training)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.2)  # torch starts the biases at zero
    x = tokens() if batch_first else tokens().transpose(0, 1)
    with torch.no_grad():
        before = encoder(x)
        report = attentions.swap(encoder, "full", tokens=N)
        torch.testing.assert_close(encoder(x), before, rtol=1e-4, atol=1e-5)
    assert [module.name for module in report.modules] == ["layers.0.self_attn", "layers.1.self_attn"]
    assert all(layer.self_attn.training is training for layer in encoder.layers)


def test_torchs_masks_and_cross_attention_are_refused() -> None:
    layer = nn.TransformerEncoderLayer(DIM, 4, 64, batch_first=True)
    attentions.swap(layer, "full", tokens=N)
    with pytest.raises(AttentionError, match="key_padding_mask"):
        layer(tokens(), src_key_padding_mask=torch.zeros(2, N, dtype=torch.bool))
    with pytest.raises(AttentionError, match="query, key and value must be one tensor"):
        layer.self_attn(tokens(), tokens(), tokens())
    block = tree()
    attentions.swap(block, "full", tokens=N)
    with pytest.raises(AttentionError, match="is_causal"):
        block[0]["attn"](tokens(), is_causal=True)  # type: ignore[index]


@pytest.mark.parametrize("name", [name for name in attentions.names() if not attentions.spec(name).exact])
def test_every_other_variant_keeps_value_and_output_and_trains(name: str) -> None:
    model = tree()
    old = model[0]["attn"]  # type: ignore[index]
    report = attentions.swap(model, name, tokens=N, anchors=4)
    new = model[0]["attn"]  # type: ignore[index]
    assert torch.equal(new.projection.weight[-DIM:], old.qkv.weight[-DIM:])
    assert torch.equal(new.output.weight, old.proj.weight)
    assert torch.equal(new.output.bias, old.proj.bias)
    shared = attentions.spec(name).shares_query_key
    assert report.modules[0].merged == (("query and key (symmetric)",) if shared else ())
    fresh = [part.partition(" ")[0] for part in report.modules[0].fresh]
    assert fresh == [part for part, _ in new.core.named_parameters()]
    through(model, tokens()).square().mean().backward()
    assert all(p.grad is not None for p in new.projection.parameters())


def test_the_merge_is_the_nearest_symmetric_form() -> None:
    """Against the definition, the whole matrix: eigenvectors of the symmetric part; and it beats the other merges."""
    torch.manual_seed(0)
    q, k = (torch.randn(DIM, 30, dtype=torch.float64) for _ in range(2))
    bias = [torch.randn(DIM, dtype=torch.float64) for _ in range(2)]
    distance = {}
    for how in MERGES:
        weight, added = shared_projection((q, bias[0]), (k, bias[1]), heads=HEADS, how=how)
        assert added is not None
        p = torch.cat([weight, added[:, None]], 1).unflatten(0, (HEADS, -1))
        wide = [torch.cat([w, b[:, None]], 1).unflatten(0, (HEADS, -1)) for w, b in zip((q, k), bias, strict=True)]
        form = wide[0].mT @ wide[1]
        form = (form + form.mT) / 2
        distance[how] = (p.mT @ p - form).norm().item()
        if how == "symmetric":
            values, vectors = torch.linalg.eigh(form)
            d = DIM // HEADS
            best = (vectors[..., -d:] * values[..., None, -d:].clamp(min=0)) @ vectors[..., -d:].mT
            torch.testing.assert_close(p.mT @ p, best)
    assert distance["symmetric"] < min(distance["mean"], distance["key"])


def test_the_merge_does_not_depend_on_how_the_same_model_is_written() -> None:
    """(A Wq, A⁻ᵀ Wk) compares tokens as (Wq, Wk) does: symmetric gives the same comparison, mean and key do not."""
    torch.manual_seed(0)
    q, k = (torch.randn(16, 30, dtype=torch.float64) for _ in range(2))
    mix = torch.randn(16, 16, dtype=torch.float64)
    other = mix @ q, torch.linalg.inv(mix).T @ k
    for how in MERGES:
        one, two = (shared_projection((a, None), (b, None), heads=1, how=how)[0] for a, b in ((q, k), other))
        same = torch.allclose(one.T @ one, two.T @ two, rtol=1e-6, atol=1e-8)
        assert same == (how == "symmetric"), how


@pytest.mark.parametrize("how", MERGES)
def test_equal_query_and_key_merge_to_themselves(how: str) -> None:
    weight, bias = torch.randn(DIM, 30), torch.randn(DIM)
    merged, added = shared_projection((weight, bias), (weight, bias), heads=HEADS, how=how)
    torch.testing.assert_close(merged, weight, rtol=1e-4, atol=1e-5)
    assert added is not None
    torch.testing.assert_close(added, bias, rtol=1e-4, atol=1e-5)


def test_there_and_back() -> None:
    """A shared projection is kept among variants that share, and starts both where they do not."""
    model = tree(drop=0.25)
    first = attentions.swap(model, "anchor", tokens=N, anchors=4, init="orthogonal")
    assert first.modules[0].lost == ("dropout 0.25 of attention weights",)
    shared = model[0]["attn"].projection.weight.clone()  # type: ignore[index]
    again = attentions.swap(model, "anchor:reference", tokens=N, anchors=8)
    assert again.modules[0].kept == ("query/key", "value", "output")
    assert again.modules[0].fresh == (f"anchors (8, {DIM // HEADS})",)
    assert torch.equal(model[0]["attn"].projection.weight, shared)  # type: ignore[index]
    back = attentions.swap(model, "full", tokens=N)
    assert back.modules[0].copied
    assert torch.equal(model[0]["attn"].projection.weight[:DIM], shared[:DIM])  # type: ignore[index]
    assert torch.equal(model[0]["attn"].projection.weight[DIM:], shared)  # type: ignore[index]
    assert model[0]["attn"].drop.p == 0.25  # type: ignore[index]


@pytest.mark.parametrize("where", ["1.attn", "1.*", re.compile(r"1\..*"), re.compile(r"\d?1\.attn")], ids=str)
def test_a_pattern_chooses(where: str | re.Pattern[str]) -> None:
    model = tree()
    assert [module.name for module in attentions.swap(model, "full", tokens=N, where=where).modules] == ["1.attn"]
    assert isinstance(model[0]["attn"], Attend)  # type: ignore[index]


def test_a_class_chooses() -> None:
    model = nn.ModuleDict({"a": Attend(), "b": nn.MultiheadAttention(DIM, HEADS, batch_first=True)})
    report = attentions.swap(model, "full", tokens=N, where=(nn.MultiheadAttention,))
    assert [module.name for module in report.modules] == ["b"]


def test_a_module_used_twice_stays_one() -> None:
    shared = Attend()
    model = nn.ModuleDict({"a": shared, "b": shared})
    report = attentions.swap(model, "anchor", tokens=N, anchors=4)
    assert model["a"] is model["b"]
    assert len(report.modules) == 1


def test_place_precision_mode_and_freezing_are_the_old_ones() -> None:
    model = tree().to(torch.float64).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    attentions.swap(model, "anchor", tokens=N, anchors=4)
    new = model[0]["attn"]  # type: ignore[index]
    assert {p.dtype for p in new.parameters()} == {torch.float64}
    assert not new.training
    assert [name for name, p in new.named_parameters() if p.requires_grad] == ["core.anchors"]


def test_the_report_says_what_happened() -> None:
    model = tree(drop=0.1)
    model.append(nn.ModuleDict({"attn": Odd(), "mlp": nn.Linear(1, 1)}))
    report = attentions.swap(model, "anchor", tokens=N, anchors=4)
    assert str(report).splitlines() == [
        f"anchor in 2 modules; parameters {report.parameters[0]:,} → {report.parameters[1]:,}",
        "  0.attn … 1.attn (2)  Attend: kept value, output; merged query and key (symmetric); "
        "fresh anchors (4, 16); lost dropout 0.1 of attention weights",
        "  2.attn  left as it was: Odd computes more than softmax attention, with the parameters temperature",
    ]
    assert isinstance(report, Report)


class Odd(Attend):
    """An attention with a parameter that a swap would lose."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(1))


class Rotary(Attend):
    """An attention whose call needs what the stand-in has not."""

    def forward(self, x: Tensor, rope: Tensor | None = None) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class Scaled(Attend):
    """An attention with another scale."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (Odd(), "temperature"),
        (Rotary(), "rope"),
        (Scaled(), "scales its logits by 1.0"),
        (nn.MultiheadAttention(DIM, HEADS, kdim=8), "another width"),
        (nn.MultiheadAttention(DIM, HEADS, add_zero_attn=True), "add_zero_attn"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_swap_would_change_is_refused(module: nn.Module, why: str) -> None:
    model = nn.ModuleDict({"only": module})
    with pytest.raises(AttentionError, match=why):
        attentions.swap(model, "full", tokens=N, where="only")
    with pytest.raises(AttentionError, match=f"no attention that can be replaced.*{why}"):
        attentions.swap(model, "full", tokens=N)
    assert model["only"] is module


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("blocks.*", r"where='blocks.*' matches no module of Sequential; attention here: 0.attn \(Attend\), 1.attn"),
        ("*.mlp", r"matches 0.mlp \(Linear\), 1.mlp \(Linear\), none of which is attention; attention here: 0.attn"),
        (nn.Conv2d, "where=Conv2d matches no module"),
        ((), "give a pattern of names"),
    ],
)
def test_a_pattern_that_finds_nothing_is_answered(where: object, message: str) -> None:
    with pytest.raises(AttentionError, match=message):
        attentions.swap(tree(), "full", tokens=N, where=where)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attention": "fll"}, "did you mean 'full'"),
        ({"attention": "anchor"}, "anchors"),
        ({"attention": "anchor", "anchors": 4, "inti": "paper"}, "did you mean 'init'"),
        ({"attention": "anchor", "anchors": 4, "merge": "symetric"}, "did you mean 'symmetric'"),
        ({"attention": "full", "tokens": None}, "tokens"),
    ],
)
def test_bad_arguments_leave_the_model_as_it_was(arguments: dict[str, object], message: str) -> None:
    model = tree()
    with pytest.raises(AttentionError, match=message):
        attentions.swap(model, **{"tokens": N, **arguments})  # type: ignore[arg-type]
    assert all(isinstance(block["attn"], Attend) for block in model)  # type: ignore[index]


def test_a_model_that_is_the_attention_is_answered() -> None:
    with pytest.raises(AttentionError, match=r"torch\.nn\.Sequential"):
        attentions.swap(MultiHeadAttention(DIM, HEADS, attention="full", tokens=N), "anchor", anchors=4, tokens=N)
    with pytest.raises(AttentionError, match="known are timm's"):
        attentions.swap(nn.Linear(2, 2), "full", tokens=N)


def test_timm_is_not_imported() -> None:
    code = "import sys, attentions; attentions.swap; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

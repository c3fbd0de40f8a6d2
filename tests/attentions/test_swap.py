"""attentions.swap: what is kept computes what it did, what is merged is as defined, and errors name things."""

from __future__ import annotations

import copy
import io
import pickle
import re
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

import attentions
from attentions import AttentionError, MultiHeadAttention
from attentions.hosts import BlockAttention
from attentions.merge import MERGES, shared_projection
from attentions.swap import Report

DIM, HEADS, N = 48, 3, 21


class Attend(nn.Module):
    """What timm's Attention is, by structure: qkv, proj, num_heads, a scale, and the call with masks."""

    def __init__(self, *, bias: bool = True, drop: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.scale = HEADS, (DIM // HEADS) ** -0.5
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM, bias=bias), nn.Linear(DIM, DIM, bias=bias)
        self.attn_drop, self.proj_drop = nn.Dropout(drop), nn.Dropout(drop)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        weights = self.attn_drop(torch.softmax(self.scale * q @ k.mT, dim=-1))
        return self.proj_drop(self.proj((weights @ v).transpose(1, 2).flatten(2)))


def tree(**attend: object) -> nn.Sequential:
    """Two blocks of an attention and a linear layer."""
    torch.manual_seed(0)
    blocks = [nn.ModuleDict({"attn": Attend(**attend), "mlp": nn.Linear(DIM, DIM)}) for _ in range(2)]  # type: ignore[arg-type]
    return nn.Sequential(*blocks)


def through(model: nn.Sequential, x: Tensor) -> Tensor:
    for block in model:
        x = x + block["attn"](x)  # type: ignore[index]
        x = x + block["mlp"](x)  # type: ignore[index]
    return x


def tokens() -> Tensor:
    return torch.randn(2, N, DIM, generator=torch.Generator().manual_seed(1))


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

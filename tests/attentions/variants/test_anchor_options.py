"""Anchor attention's options beside the start: each against its formula written densely, with every gradient."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.func import functional_call

import attentions
from attentions import parallel
from attentions.kernels.anchor.keys import importances
from attentions.kernels.anchor.options import LEAST_OTHERS

B, H, N, D, M = 2, 3, 20, 8, 5
EACH: list[dict[str, Any]] = [
    {"scatter": "separate"},
    {"bias": True},
    {"per_head": True},
    {"tempered": "head"},
    {"tempered": "token"},
    {"self": "excluded"},
    {"self": "learned"},
    {"local": 3},
    {"local": 5},
    {"local": 3, "columns": 5},
    {"local": 5, "columns": 6},
    {"gate": True},
    {"importance": True},
]
TOGETHER: list[dict[str, Any]] = [
    {"scatter": "separate", "bias": True, "per_head": True, "self": "excluded"},
    {"scatter": "separate", "logits": "cosine", "per_head": True},
    {"tempered": "token", "bias": True, "self": "learned", "local": 3, "gate": True},
    {"self": "excluded", "local": 3, "gate": True, "logits": "cosine"},
    {"self": "excluded", "importance": True, "logits": "cosine"},
    {"importance": True, "scatter": "separate", "bias": True, "per_head": True},
    {"importance": True, "scatter": "separate", "self": "excluded", "tempered": "head"},
]
every = pytest.mark.parametrize("options", EACH + TOGETHER, ids=str)


def tensors() -> tuple[torch.Tensor, ...]:
    """k, v and an upstream gradient, (b, h, n, d), in float64."""
    source = torch.Generator().manual_seed(0)
    drawn = [torch.randn(B, H, N, D, generator=source, dtype=torch.float64) for _ in range(3)]
    return drawn[0].requires_grad_(), drawn[1].requires_grad_(), drawn[2]


def build(name: str = "anchor:reference", *, moved: bool = True, n: int = N, **options: Any) -> Any:
    """A float64 core; moved: what an option starts without effect has one."""
    torch.manual_seed(0)
    core = attentions.build(name, heads=H, head_dim=D, tokens=n, anchors=M, scale=0.5, **options).double()
    if moved:
        source = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in core.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=source, dtype=torch.float64))
    return core


def dense(core: Any, k: torch.Tensor, v: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    """One image and head after the other, through S (n, n), as docs/anchor.md reads."""
    rows = [_one(core, k[image, head], v[image, head], head, options) for image in range(B) for head in range(H)]
    return torch.stack(rows).view(v.shape)


def _one(core: Any, k: torch.Tensor, v: torch.Tensor, head: int, options: dict[str, Any]) -> torch.Tensor:
    n, weight = len(v), {name: p[head] if options.get("per_head") else p for name, p in core.named_parameters()}

    def assigned(anchors: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if options.get("logits") == "cosine":
            cosine = torch.nn.functional.cosine_similarity(k.unsqueeze(1), anchors, dim=-1)
            logits = core.sharpness[head].exp() * math.sqrt(D) * cosine
        else:
            logits = k @ anchors.T / math.sqrt(D)
        if options.get("tempered", "none") != "none":
            log = core.temper[head] + (k @ core.temper_weight if options["tempered"] == "token" else 0)
            logits = logits / log.exp().reshape(-1, 1)
        return torch.softmax(logits if bias is None else logits + bias, dim=-1)

    a = back = assigned(weight["anchors"], weight.get("bias"))
    if options.get("scatter") == "separate":
        back = assigned(weight["scatter"], weight.get("scatter_bias"))
    a = a * torch.exp(k @ core.importance[head]).unsqueeze(-1) if options.get("importance") else a
    s = back @ torch.diag(1 / a.sum(dim=0)) @ a.T
    if options.get("self") == "excluded":
        s = s * (1 - torch.eye(n, dtype=s.dtype))
        s = s / s.sum(dim=1, keepdim=True)
    out = s @ v
    if options.get("self") == "learned":
        out = out + core.own[head] * v
    if columns := options.get("columns", 0):
        out = out + _over_a_grid(v, core.local[head, 0], columns)
    elif width := options.get("local", 0):
        padded = torch.nn.functional.pad(v, (0, 0, width // 2, width // 2))
        out = out + sum(core.local[head, 0, tap, 0] * padded[tap : tap + n] for tap in range(width))
    return out * 2 * torch.sigmoid(k @ core.gate) if options.get("gate") else out


def _over_a_grid(v: torch.Tensor, weight: torch.Tensor, columns: int) -> torch.Tensor:
    """Token by token: what lies around it on the grid, which ends with the last token."""
    near, first, reach = torch.zeros_like(v), len(v) % columns, len(weight) // 2
    places = {divmod(token, columns): first + token for token in range(len(v) - first)}
    for (row, column), token in places.items():
        for down in range(-reach, reach + 1):
            for right in range(-reach, reach + 1):
                if (other := places.get((row + down, column + right))) is not None:
                    near[token] = near[token] + weight[down + reach, right + reach] * v[other]
    return near


@every
def test_is_the_formula_with_every_gradient(options: dict[str, Any]) -> None:
    core, (k, v, upstream) = build(**options), tensors()
    wanted = (k, v, *core.parameters())
    out, expected = core(torch.full_like(k, torch.nan), k, v), dense(core, k, v, options)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(*(torch.autograd.grad(y, wanted, upstream) for y in (out, expected)), strict=True):
        assert theirs.abs().max() > 1e-4
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


@every
def test_gradcheck(options: dict[str, Any]) -> None:
    core = build(n=6, **options)
    k, v = (x.detach()[:1, :, :6].requires_grad_() for x in tensors()[:2])
    names = [name for name, _ in core.named_parameters()]

    def call(k: torch.Tensor, v: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return functional_call(core, dict(zip(names, parameters, strict=True)), (k, k, v))

    assert torch.autograd.gradcheck(call, (k, v, *core.parameters()))


@every
def test_starts_where_it_changes_nothing(options: dict[str, Any]) -> None:
    """But for anchors of each head's own, which are drawn anew, and the own share, which has nothing to learn."""
    k, v, _ = tensors()
    plain = build(moved=False, **({"logits": "cosine"} if "logits" in options else {}))
    core = build(moved=False, **options)
    if options.get("per_head"):
        core.load_state_dict(core.state_dict() | {"anchors": plain.anchors.expand(H, M, D)})
        if core.scatter is not None:
            core.load_state_dict(core.state_dict() | {"scatter": plain.anchors.expand(H, M, D)})
    same = torch.allclose(core(k, k, v), plain(k, k, v), rtol=1e-12, atol=1e-12)
    assert same == (options.get("self") != "excluded")


@every
def test_counts_its_parameters_and_products(options: dict[str, Any], count_flops: Any) -> None:
    core, definition = build(**options), attentions.spec("anchor")
    weights = sum(p.numel() for p in core.parameters())
    k, v, upstream = tensors()
    forward, backward = (definition.cost(B, H, N, D, M, x, itemsize=8, **options) for x in ("forward", "backward"))
    assert forward.bytes == 8 * (3 * B * H * N * D + weights)
    with torch.no_grad():
        assert count_flops(lambda: core(k, k, v)) == forward.flops
    out = core(k, k, v)
    assert count_flops(lambda: out.backward(upstream)) == backward.flops


def test_parameters() -> None:
    def shapes(**options: Any) -> dict[str, tuple[int, ...]]:
        return {name: tuple(p.shape) for name, p in build(**options).named_parameters()}

    assert shapes(scatter="separate", bias=True) == {
        "anchors": (M, D), "scatter": (M, D), "bias": (M,), "scatter_bias": (M,),
    }  # fmt: skip
    assert shapes(per_head=True, bias=True) == {"anchors": (H, M, D), "bias": (H, M)}
    assert shapes(tempered="token", local=3) == {
        "anchors": (M, D), "temper": (H,), "temper_weight": (D,), "local": (H, 1, 3, 1),
    }  # fmt: skip
    assert shapes(local=3, columns=5) == {"anchors": (M, D), "local": (H, 1, 3, 3)}
    assert shapes(gate=True, self="learned") == {"anchors": (M, D), "own": (H,), "gate": (D, D)}
    assert shapes(self="excluded") == {"anchors": (M, D)}


def test_tokens_that_are_not_a_row_of_the_grid_have_no_neighbours() -> None:
    k, v, _ = (x[:, :, :4] for x in tensors())
    core, plain = build(local=3, columns=5), build(moved=False)
    plain.load_state_dict({"anchors": core.anchors})
    torch.testing.assert_close(core(k, k, v), plain(k, k, v))


def test_heads_of_their_own_start_each_as_shared_ones_do() -> None:
    core = attentions.build("anchor", heads=2, head_dim=16, tokens=8, anchors=16, init="orthogonal", per_head=True)
    for rows in core.anchors:
        torch.testing.assert_close(rows @ rows.T, torch.eye(16), atol=1e-5, rtol=0)
    assert not torch.equal(*core.anchors)


def test_excluded_weights_are_those_of_the_others_and_sum_to_one() -> None:
    core = build(self="excluded")
    k, v, _ = tensors()
    torch.testing.assert_close(core(k, k, torch.ones_like(v)), torch.ones_like(v))
    alone = v.detach().clone()
    alone[:, :, 3] += 100
    changed = (core(k, k, alone) - core(k, k, v)).abs().amax(dim=(0, 1, 3))
    assert changed[3] < 1e-12
    assert (changed > 1e-3).sum() == N - 1


def test_no_token_is_heard_more_than_another_but_by_importance() -> None:
    """The columns of S: what all tokens together take from one. As many tokens as v has dimensions, one for each."""
    k = tensors()[0][:, :, :D]
    heard = torch.eye(D, dtype=k.dtype).expand(B, H, D, D)

    def columns(core: Any) -> torch.Tensor:
        logs = None if core.importance is None else importances(k, core.importance)
        given = (k, heard, core.anchors, *([None] * 3), logs)
        return attentions.spec("anchor").backend("reference").compute(*given).sum(dim=-2)

    torch.testing.assert_close(columns(build()), torch.ones(B, H, D, dtype=k.dtype))
    assert columns(build(importance=True)).amax() > 1.5
    core = build(moved=False, importance=True)
    with torch.no_grad():
        core.importance.fill_(60.0)
    most = (k.sum(dim=-1) == k.sum(dim=-1).amax(dim=-1, keepdim=True)).to(k.dtype)
    torch.testing.assert_close(columns(core), D * most)


@pytest.mark.parametrize("autocast", [False, True])
def test_importance_is_not_rounded_to_a_narrow_type(autocast: bool) -> None:
    """It is an exponent: 8 in bfloat16 is 8 ± 0.03, a count 3 % off."""
    k, weight = tensors()[0].detach().bfloat16(), 3 * torch.ones(H, D, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        found = importances(k, weight)
    torch.testing.assert_close(found.double(), 3 * k.double().sum(dim=-1), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "sdpa", "chunked"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_importance_beyond_every_exponent_is_a_choice_of_one_token(dtype: torch.dtype, backend: str) -> None:
    k, v, upstream = (x.detach().to(dtype).requires_grad_() for x in tensors())
    core = build(f"anchor:{backend}", moved=False, importance=True).to(dtype)
    with torch.no_grad():
        core.importance.fill_(2000.0)
    out = core(k, k, v)
    chosen = k.float().sum(dim=-1).argmax(dim=-1)
    torch.testing.assert_close(out, v.gather(2, chosen[..., None, None].expand(B, H, N, D)), rtol=2e-2, atol=2e-2)
    assert all(torch.isfinite(x).all() for x in torch.autograd.grad(out, (k, v, *core.parameters()), upstream))


@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_token_alone_with_its_anchors_gets_what_others_give_it(n: int, dtype: torch.dtype, backend: str) -> None:
    """One token alone: zero. Few tokens so sharply assigned that each has an anchor to itself: next to zero, finite."""
    core = build(f"anchor:{backend}", moved=False, self="excluded").to(dtype)
    with torch.no_grad():
        core.anchors.copy_(40 * torch.eye(M, D))
    k = torch.eye(n, D, dtype=dtype).expand(B, H, n, D).clone().requires_grad_()
    v = torch.ones(B, H, n, D, dtype=dtype, requires_grad=True)
    out = core(k, k, v)
    out.sum().backward()
    assert out.dtype == dtype
    assert all(torch.isfinite(x).all() for x in (out, k.grad, v.grad, core.anchors.grad))
    assert out.abs().max() <= (torch.finfo(torch.float32).eps * 8 / LEAST_OTHERS if n == 1 else 0.05)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_excluded_in_float32_is_near_float64_where_most_is_ones_own(share: float, backend: str) -> None:
    """Two tokens and two anchors, each token with that share of itself."""
    anchors = torch.tensor([[1.0, 0.0], [0.0, 1.0]]) * math.log(share / (1 - share)) * math.sqrt(2)
    k, v = torch.eye(2).expand(1, 1, 2, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(1, 1, 2, 2)
    core = attentions.build(f"anchor:{backend}", heads=1, head_dim=2, tokens=2, anchors=2, self="excluded")
    with torch.no_grad():
        core.anchors.copy_(anchors)
        torch.testing.assert_close(core(k, k, v), v.flip(2), rtol=1e-5, atol=1e-5)


def test_transolver_without_attention_among_slices_is_anchor_with_bias_and_temperature() -> None:
    """Its weight times √d are the anchors; it divides the bias by the temperature too, so heads of equal ones share."""
    k, v, upstream = tensors()
    for temperatures, per_head in (([0.4, 0.4, 0.4], False), ([0.3, 0.5, 0.9], True)):
        torch.manual_seed(0)
        theirs: Any = attentions.build(
            "transolver:reference", heads=H, head_dim=D, tokens=N, anchors=M, mixing=False, epsilon=0.0
        ).double()
        ours = build(moved=False, bias=True, tempered="head", per_head=per_head)
        with torch.no_grad():
            tau = torch.tensor(temperatures, dtype=torch.float64)
            theirs.temperature.copy_(tau)
            ours.temper.copy_(tau.log())
            ours.anchors.copy_(theirs.weight * math.sqrt(D))
            ours.bias.copy_(theirs.bias / tau[:, None] if per_head else theirs.bias / tau[0])
        mine, other = ours(k, k, v), theirs(k, k, v)
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
        grads = (torch.autograd.grad(out, (k, v), upstream) for out in (mine, other))
        for one, two in zip(*grads, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("options", [option for option in EACH + TOGETHER if "scatter" not in option], ids=str)
def test_many_blocks_of_tokens_are_one(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 7 tokens of a head, the last of 6; and two heads at a time, then one."""
    (k, v, upstream), core, reference = tensors(), build("anchor:chunked", **options), build(**options)
    wanted, others = (k, v, *core.parameters()), (k, v, *reference.parameters())
    expected = reference(k, k, v)
    theirs = torch.autograd.grad(expected, others, upstream)
    for tokens in (7, 2 * N + 3):
        monkeypatch.setattr("attentions.kernels.anchor.chunked.BLOCK_BYTES", tokens * M * 8)
        out = core(k, k, v)
        torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
        for one, two in zip(torch.autograd.grad(out, wanted, upstream), theirs, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("backend", ["sdpa", "chunked"])
@every
def test_other_backends_take_an_option_or_refuse_it(backend: str, options: dict[str, Any]) -> None:
    k, v, upstream = tensors()
    definition = attentions.spec("anchor")
    work = attentions.Work(b=B, h=H, n=N, d=D, m=M, itemsize=8, options=definition.parse_options(options))
    case = {"device": "cpu", "dtype": torch.float64, "work": work}
    core, reason = build(f"anchor:{backend}", **options), attentions.why_unavailable(f"anchor:{backend}", **case)
    if reason:
        named = [f"{name}={str(value).lower()}" for name, value in options.items()]
        assert any(name in reason for name in named)
        assert reason.endswith("; anchor:reference does")
        with pytest.raises(attentions.Unavailable, match="anchor:reference does"):
            core(k, k, v)
        with pytest.raises(attentions.Unavailable):
            attentions.resolve(f"anchor:{backend}", device="cpu", dtype=torch.float64, work=work)
        assert attentions.resolve("anchor", device="cpu", dtype=torch.float64, work=work).name != backend
        return
    reference = build(**options)
    wanted, others = (k, v, *core.parameters()), (k, v, *reference.parameters())
    out, expected = core(k, k, v), reference(k, k, v)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    mine, theirs = torch.autograd.grad(out, wanted, upstream), torch.autograd.grad(expected, others, upstream)
    for one, two in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-10)


def test_what_backends_refuse() -> None:
    """The blocks take all but separate anchors, the kernels not every pair; the bare name then takes another."""
    definition = attentions.spec("anchor")

    def refused(backend: str, *, d: int = 32, **options: Any) -> str | None:
        work = attentions.Work(b=1, h=2, n=64, d=d, m=16, options=definition.parse_options(options))
        return definition.backend(backend).limits(work, torch.float32, torch.device("cuda"))

    inside: list[dict[str, Any]] = [
        {"scatter": "separate"}, {"bias": True}, {"self": "excluded"}, {"importance": True},
    ]  # fmt: skip
    for options in inside:
        name, value = next(iter(options.items()))
        said = f"does not take {name}={str(value).lower()}; anchor:reference does"
        assert refused("split", **options) == refused("single", **options) == said
        assert refused("chunked", **options) == (said if name == "scatter" else None)
        assert refused("triton", **options) is None
        assert "head_dim that is a multiple of 16" in (refused("triton", d=33, **options) or "")
    for options in ({"tempered": "token"}, {"self": "learned"}, {"local": 3}, {"gate": True}, {"logits": "cosine"}):
        assert refused("triton", **options) is refused("split", **options) is refused("chunked", **options) is None
    assert refused("split", bias=True, scatter="separate", per_head=True) == (
        "does not take scatter=separate and bias=true; anchor:reference does"
    )
    assert refused("split", per_head=True) is refused("triton", per_head=True) is None
    assert "scatter=separate and self=excluded together" in (
        refused("triton", scatter="separate", self="excluded") or ""
    )
    assert refused("sdpa", scatter="separate", per_head=True) is None
    assert all(refused("reference", **options) is None for options in EACH + TOGETHER)


def test_a_layer_takes_the_option_self_and_is_its_core_between_projections() -> None:
    torch.manual_seed(0)
    layer = attentions.MultiHeadAttention(
        H * D, H, attention="anchor", tokens=N, anchors=M, self="learned", tempered="head"
    ).double()
    with torch.no_grad():
        layer.core.own.fill_(-0.2)
    x = torch.randn(B, N, H * D, dtype=torch.float64)
    k, v = layer.projection(x).view(B, N, 2, H, D).permute(2, 0, 3, 1, 4)
    torch.testing.assert_close(layer(x), layer.output(layer.core(k, k, v).transpose(1, 2).flatten(2)))
    assert layer.core.packed(layer.projection(x).view(B, N, 2, H, D)) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"local": 4}, "option local=4 is not valid; it takes an odd number"),
        ({"importance": True, "causal": True}, "option importance=true has no causal form"),
        ({"columns": 4}, "option columns=4 is the grid of local; set local too, or leave it out"),
        ({"local": 3, "columns": 21}, "option columns=21 is not valid; a row of the grid has at most tokens=20"),
        ({"logits": "cosine", "tempered": "head"}, "logits=cosine has a temperature of each head already"),
        ({"self": "none"}, "option self='none' is not valid; it takes one of kept, excluded, learned"),
        ({"scatter": "own"}, "it takes one of shared, separate"),
    ],
)
def test_what_cannot_be_says_what_can(options: dict[str, Any], message: str) -> None:
    with pytest.raises(attentions.AttentionError, match=message):
        build(**options)


def test_the_convolution_has_no_sequence_parallel_form() -> None:
    refuses = parallel._form("anchor").refuses
    assert refuses(build(local=3)) == "anchor's option local has no sequence-parallel form"
    assert refuses(build(gate=True)) is None

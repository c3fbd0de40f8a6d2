"""Anchor attention: the properties of its n × n matrix, which it never forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import attentions
from attentions.variants.anchor import assignment, reference, sharpened

B, H, N, D, M = 2, 3, 20, 8, 5


@pytest.fixture
def tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """k and v (b, h, n, d) and anchors (m, d), sharp enough that the rows of S differ."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw(B, H, N, D), draw(B, H, N, D), 3 * draw(M, D)


def markov(k: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """S = A Δ⁻¹ Aᵀ, dense."""
    a = torch.softmax(k @ anchors.T / D**0.5, dim=-1)
    return a @ torch.diag_embed(1 / a.sum(dim=-2)) @ a.transpose(-2, -1)


def matrix(k: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """The matrix that the implementation applies, read off its action on the unit vectors, d of them at a time."""
    columns = torch.eye(N, dtype=k.dtype).expand(B, H, N, N)
    pieces = columns.split(D, dim=-1)
    padded = [torch.nn.functional.pad(piece, (0, D - piece.shape[-1])) for piece in pieces]
    found = [reference(k, piece, anchors)[..., : given.shape[-1]] for piece, given in zip(padded, pieces, strict=True)]
    return torch.cat(found, dim=-1)


def test_equals_the_dense_product(tensors: Any) -> None:
    k, v, anchors = tensors
    torch.testing.assert_close(reference(k, v, anchors), markov(k, anchors) @ v)
    torch.testing.assert_close(matrix(k, anchors), markov(k, anchors))


def test_matrix_is_symmetric_stochastic_non_negative_and_of_low_rank(tensors: Any) -> None:
    k, _, anchors = tensors
    s = matrix(k, anchors)
    torch.testing.assert_close(s, s.transpose(-2, -1))
    torch.testing.assert_close(s.sum(dim=-1), torch.ones(B, H, N, dtype=s.dtype))
    assert (s >= 0).all()
    assert (torch.linalg.matrix_rank(s, rtol=1e-9) <= M).all()
    assert (s.std(dim=-2) > 1e-3).any()  # not the global average


def test_permuting_the_tokens_permutes_the_output(tensors: Any) -> None:
    k, v, anchors = tensors
    order = torch.randperm(N)
    torch.testing.assert_close(
        reference(k[:, :, order], v[:, :, order], anchors), reference(k, v, anchors)[:, :, order]
    )


def test_permuting_the_anchors_changes_nothing(tensors: Any) -> None:
    k, v, anchors = tensors
    torch.testing.assert_close(reference(k, v, anchors.flip(0)), reference(k, v, anchors))


def test_an_anchor_of_zero_degree_contributes_zero(tensors: Any) -> None:
    k, v, anchors = tensors
    k = k.abs() + 1
    anchors[0], anchors[1] = -1e6, 1e3  # no token is near the first: its weights and degree underflow to zero
    assert (assignment(k, anchors).sum(dim=-2)[..., 0] == 0).all()
    out = reference(k, v, anchors)
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out, reference(k, v, anchors[1:]))


def near(gap: float, **options: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """A core whose first anchor's logits lie `gap` below all others, and k, v and an upstream gradient for it."""
    source = torch.Generator().manual_seed(3)
    k, v, g = (torch.randn(B, H, N, D, generator=source) for _ in range(3))
    k[..., 0] = D**0.5
    torch.manual_seed(0)
    core = attentions.build("anchor:reference", heads=H, head_dim=D, tokens=N, anchors=M, **options)
    with torch.no_grad():
        core.anchors.copy_(torch.randn(M, D, generator=torch.Generator().manual_seed(4)))
        core.anchors[0] = 0
        core.anchors[0, 0] = -gap
    return core, {"k": k, "v": v, "g": g}


def used(core: Any, given: dict[str, torch.Tensor], compute: Any = None) -> dict[str, torch.Tensor]:
    """The output and the gradients of k, v and the parameters, by the core or by `compute` in its place."""
    wanted = {name: given[name].clone().requires_grad_() for name in "kv"} | dict(core.named_parameters())
    k, v = wanted["k"], wanted["v"]
    out = core(k, k, v) if compute is None else compute(k, v)
    grads = torch.autograd.grad(out, list(wanted.values()), given["g"])
    return {"out": out.detach(), **dict(zip(wanted, grads, strict=True))}


@pytest.mark.parametrize("backend", ["reference", "sdpa", "chunked"])
@pytest.mark.parametrize("causal", [False, True])
def test_an_anchor_of_zero_degree_has_gradients_of_zero(backend: str, causal: bool) -> None:
    """Everything else is as without it, in every backend; the Triton ones': kernels/interpreted_*.py."""
    if causal and backend != "reference":
        pytest.skip("has no causal form")
    core, given = near(1e4)
    few, _ = near(1e4)
    few.anchors = torch.nn.Parameter(core.anchors.detach()[1:].clone())
    which = attentions.spec("anchor").backend(backend)
    words = {"causal": True} if causal else {}
    found = used(core, given, lambda k, v: which.compute(k, v, core.anchors, **words))
    without = used(few, given, lambda k, v: which.compute(k, v, few.anchors, **words))
    assert (found["anchors"][0] == 0).all()
    found["anchors"] = found["anchors"][1:]
    for name, expected in without.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_an_anchor_of_zero_degree_is_read_as_zero_by_others_on_the_way_back(backend: str) -> None:
    core, given = near(1e4, scatter="separate")
    with torch.no_grad():
        core.scatter[0] = torch.ones(D)
    compute = attentions.spec("anchor").backend(backend).compute

    def dense(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        a, back = (assignment(k, x)[..., 1:] for x in (core.anchors, core.scatter))
        return back @ ((a.transpose(-2, -1) @ v) / a.sum(dim=-2).unsqueeze(-1))

    found, expected = (
        used(core, given, lambda k, v: compute(k, v, core.anchors, core.scatter)),
        used(core, given, dense),
    )
    assert (found["anchors"][0] == 0).all()
    assert expected["scatter"][0].abs().max() > 1e-3  # tokens do choose it
    for name, right in expected.items():
        torch.testing.assert_close(found[name], right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gap", [30.0, 60.0, 80.0])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("words", [{}, {"causal": True}, {"excluded": True}], ids=str)
def test_a_degree_of_almost_nothing_leaves_gradients_as_they_are_in_float64(
    gap: float, separate: bool, words: dict[str, bool]
) -> None:
    """The square of its inverse is beyond float32 from 1e-19 on."""
    core, given = near(gap, **({"scatter": "separate"} if separate else {}))

    def compute(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return reference(k, v, core.anchors, core.scatter, **words)

    found = used(core, given, compute)
    core.double()
    right = used(core, {name: tensor.double() for name, tensor in given.items()}, compute)
    for name, expected in right.items():
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-3, atol=1e-4)


def test_one_anchor_averages_all_tokens(tensors: Any) -> None:
    k, v, anchors = tensors
    torch.testing.assert_close(reference(k, v, anchors[:1]), v.mean(dim=-2, keepdim=True).expand_as(v))


def test_ignores_q(tensors: Any) -> None:
    k, v, _ = tensors
    core = attentions.build("anchor", heads=H, head_dim=D, tokens=N, anchors=M).double()
    torch.testing.assert_close(core(torch.full_like(k, torch.nan), k, v), core(k, k, v))


def test_heads_share_the_anchors() -> None:
    core = attentions.build("anchor", heads=H, head_dim=D, tokens=N, anchors=M)
    assert {name: tuple(p.shape) for name, p in core.named_parameters()} == {"anchors": (M, D)}
    core = attentions.build("anchor", heads=H, head_dim=D, tokens=N, anchors=M, logits="cosine")
    assert {name: tuple(p.shape) for name, p in core.named_parameters()} == {"anchors": (M, D), "sharpness": (H,)}


def cosine_core(backend: str = "reference") -> Any:
    """A float64 core with logits=cosine and a different temperature for each head."""
    torch.manual_seed(0)
    options = {"logits": "cosine", "temperature": 1.5, "init": "orthogonal", "scale": 3.0}
    core = attentions.build(f"anchor:{backend}", heads=H, head_dim=D, tokens=N, anchors=M, **options).double()
    with torch.no_grad():
        torch.testing.assert_close(core.sharpness, torch.full((H,), 1.5, dtype=torch.float64).log())
        core.sharpness.add_(torch.arange(H) / 2)
    return core


def cosine_matrix(k: torch.Tensor, anchors: torch.Tensor, sharpness: torch.Tensor) -> torch.Tensor:
    """S = A Δ⁻¹ Aᵀ, dense, of A = softmax(temperature · √d · cosine of k and u)."""
    cosine = torch.nn.functional.cosine_similarity(k.unsqueeze(-2), anchors, dim=-1)
    a = torch.softmax(sharpness.exp().view(-1, 1, 1) * D**0.5 * cosine, dim=-1)
    return a @ torch.diag_embed(1 / a.sum(dim=-2)) @ a.transpose(-2, -1)


@pytest.mark.parametrize("backend", ["reference", "sdpa", "chunked"])
def test_cosine_equals_its_dense_product_with_every_gradient(tensors: Any, backend: str) -> None:
    core = cosine_core(backend)
    k, v = (x.requires_grad_() for x in tensors[:2])
    wanted = (k, v, core.anchors, core.sharpness)
    upstream = torch.randn(B, H, N, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    out, dense = core(torch.full_like(k, torch.nan), k, v), cosine_matrix(k, core.anchors, core.sharpness) @ v
    torch.testing.assert_close(out, dense)
    for found, expected in zip(*(torch.autograd.grad(y, wanted, upstream) for y in (out, dense)), strict=True):
        assert expected.abs().max() > 1e-3  # the temperature too is learned from
        torch.testing.assert_close(found, expected)


def test_cosine_ignores_lengths_and_a_token_of_length_zero_is_average(tensors: Any) -> None:
    k, v, _ = tensors
    core = cosine_core()
    torch.testing.assert_close(core(k, 1e3 * k, v), core(k, k, v))
    before = core(k, k, v)
    with torch.no_grad():
        core.anchors.mul_(7)
    torch.testing.assert_close(core(k, k, v), before)
    k[:, :, 0] = 0
    k.requires_grad_()
    out = core(k, k, v)
    out.sum().backward()
    assert torch.isfinite(k.grad).all()
    torch.testing.assert_close(sharpened(k, core.sharpness)[:, :, 0], torch.zeros(B, H, D, dtype=k.dtype))


def test_cosine_in_a_narrow_type_takes_lengths_in_float32() -> None:
    k = torch.full((1, 1, 4, 64), 1e4, dtype=torch.float16)  # its square is beyond float16
    out = sharpened(k, torch.zeros(1))
    assert out.dtype == torch.float16
    torch.testing.assert_close(out.float().norm(dim=-1), torch.full((1, 1, 4), 8.0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("backend", ["reference", "sdpa", "chunked"])
def test_cosine_in_a_layer_is_its_core_between_projections(backend: str) -> None:
    torch.manual_seed(0)
    layer = attentions.MultiHeadAttention(
        H * D, H, attention=f"anchor:{backend}", tokens=N, anchors=M, logits="cosine"
    ).double()
    x = torch.randn(B, N, H * D, dtype=torch.float64)
    k, v = layer.projection(x).view(B, N, 2, H, D).permute(2, 0, 3, 1, 4)
    torch.testing.assert_close(layer(x), layer.output(layer.core(k, k, v).transpose(1, 2).flatten(2)))


def test_a_temperature_must_be_positive() -> None:
    with pytest.raises(attentions.AttentionError, match=r"option temperature=0 is not valid; .* at least 0\.01"):
        attentions.build("anchor", heads=H, head_dim=D, tokens=N, anchors=M, logits="cosine", temperature=0)


def test_initialisations() -> None:
    def start(**options: Any) -> torch.Tensor:
        torch.manual_seed(0)
        core = attentions.build("anchor", heads=2, head_dim=16, tokens=8, anchors=40, **options)
        return core.anchors.detach()

    assert start(init="paper").abs().max() <= 16**-0.5
    torch.testing.assert_close(start(init="paper", scale=8.0), 8 * start(init="paper"))
    rows = start(init="orthogonal")
    for first in range(0, 40, 16):
        block = rows[first : first + 16]
        torch.testing.assert_close(block @ block.T, torch.eye(len(block)), atol=1e-5, rtol=0)


def test_on_a_cpu_blocks_of_tokens_where_a_outgrows_the_caches() -> None:
    def order(n: int, m: int, device: str = "cpu") -> list[str]:
        work = attentions.Work(b=1, h=6, n=n, d=64, m=m)
        return [x.name for x in attentions.spec("anchor").candidates(work, torch.float32, torch.device(device))]

    assert order(16384, 256) == ["chunked", "reference", "sdpa"]
    assert order(16383, 256) == ["reference", "sdpa"]
    assert order(65536, 64) == ["reference", "sdpa"]  # k and v are as large as A: moving it is not most of the time
    assert order(65536, 256, "cuda") == ["triton", "reference", "sdpa"]


def test_a_compiled_layer_takes_no_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile would unroll them, for minutes; also where the layer ran eagerly before."""
    monkeypatch.setattr("attentions.kernels.anchor.backends.OUTGROWN", 1)
    layer = attentions.MultiHeadAttention(16, 2, attention="anchor", tokens=32, anchors=16)
    x = torch.randn(1, 32, 16)
    eager = layer(x)
    torch.testing.assert_close(torch.compile(layer, backend="eager")(x), eager)
    chosen = layer.core.compute.chosen
    assert {key[-1]: backend.name for key, backend in chosen.items()} == {False: "chunked", True: "reference"}

"""FLARE: its two softmaxes written densely, and that each of them sums to one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import attentions

B, H, N, D, M = 2, 3, 20, 8, 5


def inputs() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    drawn = (torch.randn(B, H, N, D, generator=generator, dtype=torch.float64) for _ in range(2))
    return tuple(x.requires_grad_() for x in drawn)


def build(backend: str = "reference") -> Any:
    torch.manual_seed(0)
    core = attentions.build(f"flare:{backend}", heads=H, head_dim=D, tokens=N, anchors=M).double()
    with torch.no_grad():
        core.latents.mul_(10)  # weights that differ from token to token
    return core


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_is_the_formula_with_every_gradient(backend: str) -> None:
    core, (k, v) = build(backend), inputs()
    scores = torch.einsum("hmd,bhnd->bhmn", core.latents, k)
    gathered = torch.einsum("bhmn,bhnd->bhmd", torch.softmax(scores, dim=-1), v)
    expected = torch.einsum("bhmn,bhmd->bhnd", torch.softmax(scores, dim=-2), gathered)
    out = core(torch.full_like(k, torch.nan), k, v)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    upstream = torch.randn(B, H, N, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = (k, v, core.latents)
    grads = zip(*(torch.autograd.grad(y, wanted, upstream) for y in (out, expected)), strict=True)
    for mine, theirs in grads:
        assert theirs.abs().max() > 1e-3
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-11)


def test_weights_sum_to_one_and_heads_have_latents_of_their_own() -> None:
    core, (k, v) = build(), inputs()
    torch.testing.assert_close(core(k, k, torch.ones_like(v)), torch.ones_like(v))
    before = core(k, k, v)
    with torch.no_grad():
        core.latents[1].zero_()
    after = core(k, k, v)
    torch.testing.assert_close(after[:, ::2], before[:, ::2])
    torch.testing.assert_close(after[:, 1], v[:, 1].mean(dim=-2, keepdim=True).expand(B, N, D))


def test_permuting_the_tokens_permutes_the_output() -> None:
    core, (k, v) = build(), inputs()
    order = torch.randperm(N)
    torch.testing.assert_close(core(k, k[:, :, order], v[:, :, order]), core(k, k, v)[:, :, order])


def test_parameters_and_their_start() -> None:
    core = attentions.build("flare", heads=H, head_dim=64, tokens=N, anchors=128)
    assert {name: tuple(p.shape) for name, p in core.named_parameters()} == {"latents": (H, 128, 64)}
    assert core.latents.std().item() == pytest.approx(0.1, rel=0.05)


def test_the_bare_name_stores_no_weights_on_a_gpu() -> None:
    work = attentions.Work(b=1, h=2, n=64, d=16, m=8)
    for device, expected in (("cuda", ["sdpa", "reference"]), ("cpu", ["reference", "sdpa"])):
        found = attentions.spec("flare").candidates(work, torch.float32, torch.device(device))
        assert [backend.name for backend in found] == expected

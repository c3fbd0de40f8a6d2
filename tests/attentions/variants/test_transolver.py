"""Physics-Attention: its formula written densely, and anchor attention where its slices do not attend to each other."""

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


def build(**options: Any) -> Any:
    """A float64 core with a different temperature for each head."""
    torch.manual_seed(0)
    core = attentions.build("transolver:reference", heads=H, head_dim=D, tokens=N, anchors=M, **options).double()
    with torch.no_grad():
        core.temperature.copy_(torch.tensor([0.3, 0.5, 0.9]))
    return core


def dense(core: Any, k: torch.Tensor, v: torch.Tensor, epsilon: float) -> torch.Tensor:
    """One image and head after the other, as the definition reads."""
    rows = []
    for image in range(B):
        for head in range(H):
            logits = (k[image, head] @ core.weight.T + core.bias) / core.temperature[head]
            a = torch.softmax(logits, dim=-1)
            s = torch.stack([(a[:, j] @ v[image, head]) / (a[:, j].sum() + epsilon) for j in range(M)])
            if core.query is not None:
                scores = (s @ core.query.T) @ (s @ core.key.T).T / D**0.5
                s = torch.softmax(scores, dim=-1) @ (s @ core.value.T)
            rows.append(a @ s)
    return torch.stack(rows).view(B, H, N, D)


@pytest.mark.parametrize("options", [{}, {"mixing": False}, {"epsilon": 0.3}], ids=str)
def test_is_the_formula_with_every_gradient(options: dict[str, Any]) -> None:
    core, (k, v) = build(**options), inputs()
    upstream = torch.randn(B, H, N, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = (k, v, *core.parameters())
    out = core(torch.full_like(k, torch.nan), k, v)
    expected = dense(core, k, v, options.get("epsilon", 1e-5))
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    grads = zip(*(torch.autograd.grad(y, wanted, upstream) for y in (out, expected)), strict=True)
    for mine, theirs in grads:
        assert theirs.abs().max() > 1e-3
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-11)


def test_permuting_the_tokens_permutes_the_output() -> None:
    core, (k, v) = build(), inputs()
    order = torch.randperm(N)
    torch.testing.assert_close(core(k, k[:, :, order], v[:, :, order]), core(k, k, v)[:, :, order])


def test_an_empty_slice_holds_zero() -> None:
    core, (k, v) = build(epsilon=0.0, mixing=False), inputs()
    with torch.no_grad():
        core.bias[0] = -1e6
    out = core(k, k, v)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(k.grad).all()


def test_parameters_and_their_starts() -> None:
    core = attentions.build("transolver", heads=H, head_dim=D, tokens=N, anchors=M)
    shapes = {name: tuple(parameter.shape) for name, parameter in core.named_parameters()}
    assert shapes == {
        "weight": (M, D), "bias": (M,), "temperature": (H,), "query": (D, D), "key": (D, D), "value": (D, D),
    }  # fmt: skip
    torch.testing.assert_close(core.weight @ core.weight.T, torch.eye(M))
    assert (core.temperature == 0.5).all()
    assert set(dict(build(mixing=False).named_parameters())) == {"weight", "bias", "temperature"}


@pytest.mark.parametrize("mixing", [True, False])
def test_counts_its_parameters_and_products(mixing: bool, count_flops: Any) -> None:
    core = build(mixing=mixing)
    weights = sum(p.numel() for p in core.parameters())
    cost = attentions.spec("transolver").cost(B, H, N, D, M, mixing=mixing, itemsize=8)
    assert cost.bytes == 8 * (3 * B * H * N * D + weights)
    k, v = (x.detach() for x in inputs())
    with torch.no_grad():
        assert count_flops(lambda: core(k, k, v)) == cost.flops

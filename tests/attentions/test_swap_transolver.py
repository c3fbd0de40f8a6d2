"""Swapping in a Transolver-like model: taken for what it computes, by the same function with `transolver`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import attentions
from attentions import AttentionError

DIM, HEADS, SLICES, N = 24, 3, 5, 40


class Physics(nn.Module):
    """Transolver's attention by its description (Wu et al. 2024, arXiv 2402.02366, section 3.2) in its release's names.

    Slice weights are a softmax over the slices of a linear map of the projected point over a temperature a head; slices
    are weighted means, they attend to each other, and points take back what their weights give.
    """

    def __init__(self, *, drop: float = 0.0, wrong: str = "") -> None:
        super().__init__()
        self.heads, self.wrong = HEADS, wrong
        self.temperature = nn.Parameter(torch.full((1, HEADS, 1, 1), 0.5))
        self.in_project_x, self.in_project_fx = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
        self.in_project_slice = nn.Linear(DIM // HEADS, SLICES)
        self.to_q, self.to_k, self.to_v = (nn.Linear(DIM // HEADS, DIM // HEADS, bias=False) for _ in range(3))
        self.dropout, self.to_out = nn.Dropout(drop), nn.Sequential(nn.Linear(DIM, DIM), nn.Dropout(drop))

    def forward(self, x: Tensor) -> Tensor:
        points, values = (
            layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.in_project_x, self.in_project_fx)
        )
        weights = torch.softmax(self.in_project_slice(points) / self.temperature, dim=-1)
        slices = torch.einsum("bhnm,bhnd->bhmd", weights, values) / (weights.sum(dim=2)[..., None] + 1e-5)
        mixed = self._among(slices) + (slices if self.wrong == "residual" else 0)
        return self.to_out((weights @ mixed).transpose(1, 2).flatten(2))

    def _among(self, slices: Tensor) -> Tensor:
        scores = self.to_q(slices) @ self.to_k(slices).mT * (DIM // HEADS) ** -0.5
        return self.dropout(torch.softmax(scores, dim=-1)) @ self.to_v(slices)


class Solver(nn.Module):
    """A Transolver: points and what is known there, lifted; pre-norm blocks; a number a point."""

    def __init__(self, **physics: object) -> None:
        super().__init__()
        self.preprocess = nn.Sequential(nn.Linear(3, 2 * DIM), nn.GELU(), nn.Linear(2 * DIM, DIM))
        self.blocks = nn.ModuleList(
            nn.ModuleDict({
                "ln_1": nn.LayerNorm(DIM), "Attn": Physics(**physics), "ln_2": nn.LayerNorm(DIM),  # type: ignore[arg-type]
                "mlp": nn.Sequential(nn.Linear(DIM, DIM), nn.GELU(), nn.Linear(DIM, DIM)),
            })
            for _ in range(2)
        )  # fmt: skip
        self.answer = nn.Sequential(nn.LayerNorm(DIM), nn.Linear(DIM, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.preprocess(x)
        for block in self.blocks:
            x = x + block["Attn"](block["ln_1"](x))  # type: ignore[index]
            x = x + block["mlp"](block["ln_2"](x))  # type: ignore[index]
        return self.answer(x)


@pytest.fixture
def solver() -> Solver:
    torch.manual_seed(0)
    return Solver()


def points() -> Tensor:
    return torch.rand(2, N, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("training", [True, False])
def test_transolver_in_its_own_place_computes_what_was_there(solver: Solver, training: bool) -> None:
    solver.train(training)
    before = solver(points())
    report = attentions.swap(solver, "transolver", anchors=SLICES, tokens=N)
    torch.testing.assert_close(solver(points()), before, rtol=1e-4, atol=1e-5)
    assert report.parameters[0] == report.parameters[1]
    assert [module.name for module in report.modules] == ["blocks.0.Attn", "blocks.1.Attn"]
    assert all(not module.fresh and not module.lost for module in report.modules)
    assert "temperature" in report.modules[0].kept


@pytest.mark.parametrize("name", ["anchor", "flare", "full"])
def test_another_attention_takes_the_projections_and_says_what_is_lost(solver: Solver, name: str) -> None:
    old = solver.blocks[0]["Attn"]  # type: ignore[index]
    report = attentions.swap(solver, name, anchors=SLICES, tokens=N)
    new = solver.blocks[0]["Attn"]  # type: ignore[index]
    assert torch.equal(new.projection.weight[-DIM:], old.in_project_fx.weight)
    assert torch.equal(new.projection.weight[:DIM], old.in_project_x.weight)
    assert torch.equal(new.output.weight, old.to_out[0].weight)
    assert report.modules[0].lost == ("5 slices and the attention among them",)
    assert "lost 5 slices" in str(report)
    solver(points()).square().mean().backward()
    assert all(p.grad is not None for p in new.parameters())


def test_other_numbers_of_slices_start_fresh(solver: Solver) -> None:
    report = attentions.swap(solver, "transolver", anchors=SLICES + 1, tokens=N)
    assert {part.partition(" ")[0] for part in report.modules[0].fresh} == {
        "weight", "bias", "temperature", "query", "key", "value",
    }  # fmt: skip
    assert report.modules[0].lost


def test_dropout_is_kept_behind_and_lost_among_the_slices() -> None:
    model = Solver(drop=0.25)
    report = attentions.swap(model, "transolver", anchors=SLICES, tokens=N)
    assert report.modules[0].lost == ("dropout 0.25 of attention weights",)
    assert model.blocks[0]["Attn"].drop.p == 0.25  # type: ignore[index]


def test_what_only_has_its_parts_is_refused() -> None:
    with pytest.raises(AttentionError, match="is not Physics-Attention: its output differs by"):
        attentions.swap(Solver(wrong="residual"), "anchor", anchors=4, tokens=N)
    model = Solver()
    model.blocks[0]["Attn"].further = nn.Parameter(torch.zeros(1))  # type: ignore[index]
    report = attentions.swap(model, "anchor", anchors=4, tokens=N)
    assert [name for name, _ in report.left] == ["blocks.0.Attn"]
    assert "with the parameters further" in report.left[0][1]

"""Solution operators: the solvers against analytic solutions, the task as every task, and that the floor is above."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import Silent

import attentions
from harness.cli import main
from harness.errors import UsageError
from harness.store.record import LESS_IS_BETTER, TASK_UNITS, merit
from harness.store.runs import read
from harness.vision import tasks
from harness.vision.checkpoint import load
from harness.vision.data import darcy, poisson
from harness.vision.data.pde import RandomField
from harness.vision.operator import OperatorModel, relative_l2
from harness.vision.plan import Plan
from harness.vision.recipe import Recipe
from harness.vision.runfolder import BEST
from harness.vision.task import Mechanism
from harness.vision.train import train

SMALL = {"points": 144, "samples": 6, "judged": 3, "width": 8, "heads": 2, "depth": 1}


def orders(errors: dict[int, float]) -> list[float]:
    """The observed order of convergence between one size and the next: of sides of a grid, or roots of n."""
    return [math.log(a / b) / math.log(m / n) for (n, a), (m, b) in pairwise(sorted(errors.items()))]


def off(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    centres = (np.arange(side) + 0.5) / side
    return np.meshgrid(centres, centres, indexing="ij")  # type: ignore[return-value]


# The solvers


def test_darcy_converges_to_the_analytic_solution_in_second_order() -> None:
    """u = sin πx sin πy for a = 1 + x + y², with the source that makes it so."""
    errors = {}
    for side in (8, 16, 32, 64):
        x, y = grid(side)
        sines, a = np.sin(np.pi * x) * np.sin(np.pi * y), 1 + x + y**2
        source = 2 * np.pi**2 * a * sines
        source -= np.pi * (np.cos(np.pi * x) * np.sin(np.pi * y) + 2 * y * np.sin(np.pi * x) * np.cos(np.pi * y))
        errors[side] = off(darcy.solve_on_grid(a, source), sines)
    assert errors[64] < 1e-3
    assert all(1.8 < order < 2.2 for order in orders(errors)), errors


@pytest.mark.parametrize("jump", [4.0, 1000.0])
def test_the_flow_over_a_jump_of_the_permeability_is_right(jump: float) -> None:
    """u = sin 2πx sin πy / a for a = 1 on the left and `jump` on the right: a ∇u is continuous, ∇u is not."""
    errors = {}
    for side in (8, 16, 32, 64):
        x, y = grid(side)
        flow, a = np.sin(2 * np.pi * x) * np.sin(np.pi * y), np.where(x < 0.5, 1.0, jump)
        errors[side] = off(darcy.solve_on_grid(a, 5 * np.pi**2 * flow), flow / a)
    assert errors[64] < 2e-3
    assert all(1.8 < order < 2.2 for order in orders(errors)), errors


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31))
def test_what_rock_takes_in_leaves_over_its_border(number: int) -> None:
    solved = darcy.problem(256, number)
    phases = np.where(solved.given[:, 0] > 0, *darcy.PHASES[::-1]).reshape(16, 16)
    pressure = solved.solution.reshape(16, 16) * darcy.TYPICAL
    assert (pressure > 0).all()
    assert (darcy.over_border(phases) * pressure).sum() == pytest.approx(1.0)


def test_poisson_converges_to_the_analytic_solution_in_second_order() -> None:
    """Around a hole: u = sin πx sin πy · (|x − c|² − r²), zero on the border and on the rim."""
    errors = {}
    for side in (16, 32, 64):
        hole = np.array([[0.45, 0.55, 0.2]])
        cloud = poisson.scatter(side**2, hole, np.random.default_rng(0))
        x, y = cloud.points.T
        across, up = x - 0.45, y - 0.55
        inside = across**2 + up**2 - 0.04
        sines, (dx, dy) = np.sin(np.pi * x) * np.sin(np.pi * y), (
            np.pi * np.cos(np.pi * x) * np.sin(np.pi * y), np.pi * np.sin(np.pi * x) * np.cos(np.pi * y)
        )  # fmt: skip
        source = 2 * np.pi**2 * sines * inside - 4 * (dx * across + dy * up) - 4 * sines
        errors[side] = off(poisson.solve_on_cloud(cloud, source), sines * inside)
    assert errors[64] < 5e-3
    assert all(1.5 < order < 2.6 for order in orders(errors)), errors


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.sampled_from([144, 200, 1000]))
def test_triangles_fill_the_square_but_for_its_holes(number: int, count: int) -> None:
    generator = np.random.default_rng(number)
    holes = poisson.draw_holes(generator)
    cloud = poisson.scatter(count, holes, generator)
    assert cloud.points.shape == (count, 2)
    assert len(np.unique(cloud.points, axis=0)) == count
    assert set(cloud.triangles.ravel()) == set(range(count))
    corners = cloud.points[cloud.triangles]
    around = [max(poisson.RIM, round(2 * math.pi * r * int(math.sqrt(count)))) for *_, r in holes]
    polygons = sum(k / 2 * r**2 * math.sin(2 * math.pi / k) for k, (*_, r) in zip(around, holes, strict=True))
    assert np.abs(poisson._areas(corners)).sum() == pytest.approx(1 - polygons)
    on_rim = [np.isclose(np.hypot(*(cloud.points - (x, y)).T), r) for x, y, r in holes]
    on_square = np.isclose(cloud.points * (1 - cloud.points), 0).any(axis=1)
    assert (np.any([*on_rim, on_square], axis=0) == cloud.border).all()


def test_a_field_is_one_function_at_every_size_and_as_rough_as_it_says() -> None:
    fields = [RandomField.draw(np.random.default_rng(number)) for number in range(200)]
    points = np.array([[0.1, 0.2], [0.7, 0.9]])
    assert np.allclose(fields[0].at(points)[:1], fields[0].at(points[:1]))
    k = np.arange(32)
    eigen = 1 / (np.pi**2 * (k[:, None] ** 2 + k**2) + 9) ** 2
    eigen[0, 0] = 0
    waves = np.cos(np.pi * 0.1 * k) * np.where(k > 0, 2**0.5, 1), np.cos(np.pi * 0.2 * k) * np.where(k > 0, 2**0.5, 1)
    variance = (eigen * np.outer(waves[0] ** 2, waves[1] ** 2)).sum()
    drawn = np.var([field.at(points[:1])[0] for field in fields])
    assert drawn == pytest.approx(variance, rel=0.4)  # 4 standard errors of a variance of 200
    coarse, fine = (darcy.problem(size, 3).given.reshape(side, side) for size, side in ((100, 10), (900, 30)))
    assert (coarse == fine[1::3, 1::3]).all()


# The task


@pytest.mark.parametrize("equation", tasks.get("operator").options.model_fields["equation"].annotation.__args__)
def test_problems_are_functions_of_their_number_and_no_training_is_judged_on(equation: str) -> None:
    task = tasks.get("operator")
    options = task.parse({**SMALL, "equation": equation})
    first, again = (task.data(options, None, "train") for _ in range(2))
    held = task.data(options, None, "val")
    assert (len(first), len(held), list(first.classes)) == (6, 3, ["solution"])
    for index in (0, 4):
        assert all(torch.equal(a, b) for a, b in zip(first[index], again[index], strict=True))
    solutions = [data[index][1] for data in (first, held) for index in range(3)]
    assert len({tuple(solution.tolist()) for solution in solutions}) == 6
    inputs, solution = first[0]
    assert inputs.shape == (144, 2 + {"darcy": 1, "poisson": 2}[equation])
    assert inputs[:, :2].min() >= 0
    assert inputs[:, :2].max() <= 1
    assert 0.1 < solution.square().mean().sqrt() < 10  # of order one, which is what a network starts from


def test_what_cannot_be_is_said_in_a_line() -> None:
    task = tasks.get("operator")
    with pytest.raises(UsageError, match="points=1000 is no square, 961 and 1024 are"):
        task.data(task.parse({"points": "1000"}), None, "train")
    with pytest.raises(UsageError, match="points=100: poisson takes at least 144"):
        task.data(task.parse({"points": "100", "equation": "poisson"}), None, "train")
    with pytest.raises(UsageError, match="option of operator equation: input should be 'darcy' or 'poisson'"):
        task.parse({"equation": "stokes"})


@pytest.mark.parametrize("name", attentions.names())
def test_every_attention_maps_points_to_values(name: str) -> None:
    if reason := attentions.why_unavailable(name, device="cpu"):
        pytest.skip(reason)
    torch.manual_seed(0)
    model = OperatorModel(features=1, attention=name, anchors=4, tokens=36, width=16, heads=2, depth=2)
    out = model(torch.rand(3, 36, 3))
    assert out.shape == (3, 36)
    out.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_error_is_the_mean_over_problems_and_merges() -> None:
    true = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    assert relative_l2(torch.zeros(2, 2), true).tolist() == [1.0, 1.0]
    meters = [tasks.get("operator").meter(None, None) for _ in range(2)]
    meters[0].update(torch.tensor([[3.0, 1.5]]), [None, true[:1]])
    meters[1].update(torch.tensor([[0.0, 1.0]]), [None, true[1:]])
    meters[0].merge(meters[1:])
    assert meters[0].compute() == {"relative_l2": pytest.approx(0.5)}
    assert math.isnan(tasks.get("operator").meter(None, None).compute()["relative_l2"])


def test_of_an_error_the_least_is_best(tmp_path: Path) -> None:
    """The kept weights are those of the evaluation with the smallest error, in whatever order they came."""
    assert "relative_l2" in TASK_UNITS
    assert set(LESS_IS_BETTER) <= set(TASK_UNITS)
    assert merit("relative_l2", 0.1) > merit("relative_l2", 0.2)
    assert merit("top1", 0.1) < merit("top1", 0.2)
    plan = Plan(
        task="operator", options=SMALL, mechanism=Mechanism(attention="none"),
        recipe=Recipe(steps=6, batch=2, lr=3e-2, evaluate=1, log=6),
    )  # fmt: skip
    listener = Silent()
    outcome = train(plan, tmp_path / "run", listener=listener, device="cpu")
    errors = [values["relative_l2"] for values in listener.values]
    assert len(errors) == 6
    assert outcome.best["value"] == min(errors)
    assert load(tmp_path / "run" / BEST)[1]["step"] == 1 + errors.index(min(errors))


@pytest.mark.parametrize("equation", ["darcy", "poisson"])
def test_it_trains_from_the_command_line_with_its_figures(equation: str, tmp_path: Path, capsys: Any) -> None:
    sizes = [text for name, value in SMALL.items() for text in ("--set", f"operator.{name}={value}")]
    out = tmp_path / "run"
    words = ["train", "operator", *sizes, "--set", f"operator.equation={equation}", "--anchors", "4", "--device", "cpu"]
    assert main([*words, "--steps", "2", "--batch", "2", "-q", "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[0] == "relative_l2"
    rows = read(out)
    assert list(rows["metric"]) == ["relative_l2", "loss", "params"]
    assert rows["n"].unique().tolist() == [144]
    assert (out / "figures" / "predictions.png").stat().st_size > 10_000

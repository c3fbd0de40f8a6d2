"""Learning a solution operator: what is known of a differential equation at n points → its solution there.

    harness train operator --attention anchor --anchors 32 --out runs/darcy
    harness train operator --set operator.equation=poisson --set operator.points=4096 --attention full --out runs/p

Steady Darcy flow through random rock on a grid, or Poisson's equation on irregular points around holes
(harness/vision/data/darcy.py and poisson.py). Problems are generated and solved by a sparse direct solver as they are
asked for, and kept: it reads no files. The network is harness/vision/operator.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness.vision import solutions
from harness.vision.data import darcy, poisson
from harness.vision.data.pde import Solved
from harness.vision.operator import OperatorModel, relative_l2
from harness.vision.task import Mechanism, Options, Task

EQUATIONS: dict[str, Any] = {"darcy": darcy, "poisson": poisson}
KEPT_NUMBERS = 1 << 27  # of problems that stay in memory, 1 GiB; what is more is solved anew
HELD = 1 << 31  # the number of the first held-out problem: training never has one of them
DRAWN = 3


class OperatorOptions(Options):
    """The equation, its points, how many problems are trained on and judged on, and the model's size."""

    equation: Literal["darcy", "poisson"] = "darcy"
    points: int = Field(default=1024, ge=16, le=1 << 18)
    samples: int = Field(default=1000, ge=1, le=1 << 30)
    judged: int = Field(default=200, ge=1, le=1 << 20)
    width: int = Field(default=64, ge=1, le=1 << 14)
    heads: int = Field(default=4, ge=1, le=1 << 10)
    depth: int = Field(default=4, ge=1, le=1 << 8)


@dataclass(frozen=True, kw_only=True)
class Problems:
    """(inputs (n, 2 + c), solution (n,)) of one problem each: the coordinates, what is known, and what is asked for."""

    equation: str
    points: int
    count: int
    first: int
    kept: dict[int, Solved] = field(default_factory=dict, repr=False, compare=False)

    @property
    def classes(self) -> Sequence[str]:
        """What a point is given."""
        return ["solution"]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        solved = self.solved(index)
        inputs = torch.cat([torch.from_numpy(part).float() for part in (solved.points, solved.given)], dim=-1)
        return inputs, torch.from_numpy(solved.solution).float()

    def solved(self, index: int) -> Solved:
        """A problem with its triangles."""
        if index in self.kept:
            return self.kept[index]
        solved = EQUATIONS[self.equation].problem(self.points, self.first + index)
        triangles = 0 if solved.triangles is None else solved.triangles.size
        if len(self.kept) * (6 * self.points + triangles) < KEPT_NUMBERS:
            self.kept[index] = solved
        return solved


class Error:
    """relative_l2: the mean over the problems of ‖found − true‖ / ‖true‖."""

    def __init__(self) -> None:
        self.sum, self.seen = 0.0, 0

    def update(self, predictions: Tensor, batch: Any) -> None:
        """Solutions (b, n) and the batch that they answer."""
        self.sum += float(relative_l2(predictions.double(), batch[1].double()).sum())
        self.seen += len(predictions)

    def merge(self, others: Sequence[Error]) -> None:
        """Add what other processes summed."""
        self.sum += sum(other.sum for other in others)
        self.seen += sum(other.seen for other in others)

    def compute(self) -> Mapping[str, float]:
        """{"relative_l2": mean}, not a number before the first batch."""
        return {"relative_l2": self.sum / self.seen if self.seen else float("nan")}


def _data(options: OperatorOptions, folder: Path | None, split: str) -> Problems:
    EQUATIONS[options.equation].check(options.points)
    train = split == "train"
    return Problems(
        equation=options.equation, points=options.points, count=options.samples if train else options.judged,
        first=0 if train else HELD,
    )  # fmt: skip


def _model(options: OperatorOptions, mechanism: Mechanism, data: Any) -> nn.Module:
    return OperatorModel(
        features=EQUATIONS[options.equation].FEATURES, attention=mechanism.attention, anchors=mechanism.anchors,
        options=mechanism.options, tokens=options.points, width=options.width, heads=options.heads,
        depth=options.depth,
    )  # fmt: skip


def _objective(options: OperatorOptions, data: Any) -> Callable[[nn.Module, Any], dict[str, Tensor]]:
    return lambda model, batch: {"loss_relative": relative_l2(model(batch[0]), batch[1]).mean()}


def _draw(network: nn.Module, data: Any, device: Any) -> Any:
    solved = [data.solved(index) for index in range(min(DRAWN, len(data)))]
    found = [network(data[index][0].to(device)[None])[0].cpu().numpy() for index in range(len(solved))]
    return solutions.drawn(solved, found)


TASK = Task(
    name="operator",
    summary="Solution operators of Darcy flow and of Poisson's equation on irregular points: generated",
    metrics=("relative_l2",),
    options=OperatorOptions,
    data=_data,
    model=_model,
    objective=_objective,
    meter=lambda options, data: Error(),
    recipe={"steps": 1000, "batch": 8, "lr": 2e-3, "weight_decay": 0.01},
    draw=_draw,
)

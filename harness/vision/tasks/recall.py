"""Associative recall under load, as a task: which colour does the shape have that token 0 asks for?

    harness train recall --attention anchor --anchors 16 --out runs/recall
    harness train recall --set recall.questions=8 --out runs/queries     # the first 8 tokens ask, for 8 different items

The problem, its model and a quicker loop that draws whole batches are in harness/vision/recall.py. It reads no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from harness.errors import UsageError
from harness.vision.recall import EVALUATED, EVALUATION_SEED, Load, RecallModel, cross_entropy, draw
from harness.vision.task import Mechanism, Options, Task


class RecallOptions(Options):
    """The load (shapes, colours, items among tokens, questions), the model's size, and the samples of an epoch."""

    shapes: int = Field(default=24, ge=1, le=1 << 16)
    colours: int = Field(default=8, ge=2, le=1 << 16)
    items: int = Field(default=12, ge=1, le=1 << 16)
    tokens: int = Field(default=64, ge=2, le=1 << 16)
    questions: int = Field(default=1, ge=1, le=1 << 16)
    width: int = Field(default=64, ge=1, le=1 << 14)
    heads: int = Field(default=4, ge=1, le=1 << 10)
    depth: int = Field(default=2, ge=1, le=1 << 8)
    samples: int = Field(default=96000, ge=1, le=1 << 40)

    @property
    def load(self) -> Load:
        """Raises UsageError where the items do not fit."""
        try:
            return Load(
                shapes=self.shapes, colours=self.colours, items=self.items, tokens=self.tokens, questions=self.questions
            )  # fmt: skip
        except ValueError as error:
            raise UsageError(f"recall: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Samples:
    """(symbols, noise, answer) drawn when asked for: by PyTorch's own generator for training, by the index if held."""

    load: Load
    count: int
    held: bool

    @property
    def classes(self) -> Sequence[str]:
        """The colours."""
        return [f"colour {index}" for index in range(1, self.load.colours + 1)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(EVALUATION_SEED + index) if self.held else None
        batch = draw(self.load, 1, generator)
        return batch.symbols[0], batch.noise[0], batch.answers[0]


class Share:
    """top1: the share of right answers."""

    def __init__(self) -> None:
        self.right = self.seen = 0

    def update(self, predictions: Tensor, batch: Any) -> None:
        """Logits (b, colours) or (b, questions, colours), and the batch that they answer."""
        self.right += int((predictions.argmax(dim=-1) == batch[2]).sum())
        self.seen += batch[2].numel()

    def merge(self, others: Sequence[Share]) -> None:
        """Add what other processes counted."""
        self.right += sum(other.right for other in others)
        self.seen += sum(other.seen for other in others)

    def compute(self) -> Mapping[str, float]:
        """{"top1": share}, not a number before the first batch."""
        return {"top1": self.right / self.seen if self.seen else float("nan")}


def _data(options: RecallOptions, folder: Path | None, split: str) -> Samples:
    held = split != "train"
    return Samples(load=options.load, count=EVALUATED if held else options.samples, held=held)


def _model(options: RecallOptions, mechanism: Mechanism, data: Any) -> nn.Module:
    return RecallModel(
        options.load, attention=mechanism.attention, anchors=mechanism.anchors, options=mechanism.options,
        width=options.width, heads=options.heads, depth=options.depth,
    )  # fmt: skip


def _objective(options: RecallOptions, data: Any) -> Callable[[nn.Module, Any], dict[str, Tensor]]:
    return lambda model, batch: {"loss_answer": cross_entropy(model(batch[0], batch[1]), batch[2])}


TASK = Task(
    name="recall",
    summary="Associative recall under load: generated, a minute a model, fails without attention",
    metrics=("top1",),
    options=RecallOptions,
    data=_data,
    model=_model,
    objective=_objective,
    meter=lambda options, data: Share(),
    predict=lambda model, batch: model(batch[0], batch[1]),
    recipe={"steps": 1500, "batch": 64, "lr": 3e-3, "weight_decay": 0.01},
)

"""The smallest trainings, for tests of how training goes; nothing here is about what is learnt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.vision.plan import Plan
from harness.vision.recipe import Recipe
from harness.vision.task import Mechanism

TINY = {"size": 8, "patch": 4, "width": 16, "depth": 2, "heads": 2}
SETTINGS = [text for name, value in TINY.items() for text in ("--set", f"classification.{name}={value}")]


class Silent:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.values: list[dict[str, float]] = []

    def begin(self, description: str, step: int, steps: int) -> None:
        """Nothing."""

    def trained(self, step: int, losses: Mapping[str, float], lr: float, images: int) -> None:
        """Keep the loss."""
        self.losses.append(losses["loss"])

    def evaluated(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the values."""
        self.values.append(dict(values))


def plan(*, attention: str = "anchor", recipe: Mapping[str, Any] | None = None, **options: Any) -> Plan:
    """Six steps on digits."""
    numbers = {"steps": 6, "batch": 8, "log": 4, "evaluate": 6, **(recipe or {})}
    return Plan(
        task="classification", options={**TINY, **options}, mechanism=Mechanism(attention=attention, anchors=2),
        recipe=Recipe(**numbers),
    )  # fmt: skip


def folders(root: Path, *, classes: int = 2, each: int = 4, size: int = 8) -> Path:
    """Class folders of plain PNG images, a colour a class."""
    from PIL import Image

    for split in ("train", "val"):
        for label in range(classes):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(each):
                Image.new("RGB", (size, size), (255 * label // classes, 60 * number, 90)).save(folder / f"{number}.png")
    return root

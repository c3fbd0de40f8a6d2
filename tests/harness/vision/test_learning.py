"""A tiny model learns each task: well above what a head on constant features can reach, which is computed here.

The thresholds lie below the worst seed seen: classification 0.45, 0.57; segmentation 0.200, 0.203 (two seeds each);
detection 0.012, 0.056 and 0.016. `python tests/harness/vision/test_learning.py FOLDER` prints three seeds of each.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from tiny_training import Silent

from harness.vision.data import scenes
from harness.vision.metrics import BoxAP, MeanIoU
from harness.vision.plan import Plan
from harness.vision.recipe import Recipe
from harness.vision.task import Mechanism
from harness.vision.train import train

SMALL = {"width": 32, "depth": 2, "heads": 2}
DENSE = {**SMALL, "size": 64, "patch": 8, "pyramid": 16, "smallest": 0.9, "largest": 1.1}


@dataclass(frozen=True)
class Lesson:
    """A problem, and the metric's value that a model must reach."""

    plan: Plan
    part: str
    metric: str
    reached: float


def lesson(task: str, part: str, metric: str, reached: float, options: dict[str, Any], **recipe: Any) -> Lesson:
    """A lesson with softmax attention, which needs the fewest steps: the pipeline is tried here, no attention."""
    mechanism = Mechanism(attention="full")
    return Lesson(Plan(task=task, options=options, mechanism=mechanism, recipe=Recipe(**recipe)), part, metric, reached)


LESSONS = {
    "classification": lesson(
        "classification", "", "top1", 0.3, {**SMALL, "size": 8, "patch": 2, "position": 0.5},
        steps=120, batch=32, lr=3e-3, evaluate=120,
    ),
    "segmentation": lesson("segmentation", "ade20k", "miou", 0.12, DENSE, steps=60, batch=8, lr=5e-3, evaluate=60),
    "detection": lesson(
        "detection", "coco", "map50", 0.008, {**DENSE, "finest": 3, "prior": 2.0}, steps=300, batch=8, lr=5e-3,
        evaluate=300, clip=5.0,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated scenes."""
    path = tmp_path_factory.mktemp("data") / "scenes"
    scenes.write(path, images=600, validation=100, size=64, seed=0)
    return path


def learn(name: str, folder: Path, out: Path, *, seed: int = 0) -> tuple[float, float]:
    """What the model reaches, and what constant features can."""
    given = LESSONS[name]
    recipe = given.plan.recipe.model_copy(update={"seed": seed})
    plan = replace(given.plan, recipe=recipe, data=str(folder / given.part) if given.part else "")
    outcome = train(plan, out, listener=Silent(), device="cpu")
    return outcome.values[given.metric], FLOORS[name](plan)


def most_frequent_class(plan: Plan) -> float:
    """Top-1 of answering the class that training has most of."""
    labels: Any = [plan.load(split) for split in ("train", "val")]
    (answer, _), *_ = Counter(labels[0].labels).most_common(1)
    return sum(label == answer for label in labels[1].labels) / len(labels[1])


def one_class_everywhere(plan: Plan) -> float:
    """Mean IoU of the best class to give every pixel."""
    data = plan.load("val")
    meters = [MeanIoU(len(data.classes)) for _ in data.classes]
    for index in range(len(data)):
        _, mask = data[index]
        for answer, meter in enumerate(meters):
            meter.update(torch.full_like(mask, answer)[None], (None, mask[None]))
    return max(meter.compute()["miou"] for meter in meters)


def the_same_boxes_everywhere(plan: Plan) -> float:
    """AP50 of a regular grid of the median box, of every class, on every image: features that do not vary."""
    data: Any = plan.load("val")
    boxes = torch.cat([data[index][1]["boxes"] for index in range(len(data))])
    width, height = (median((boxes[:, at + 2] - boxes[:, at]).tolist()) for at in (0, 1))
    centres = torch.cartesian_prod(torch.arange(4.0, 64.0, 8.0), torch.arange(4.0, 64.0, 8.0))
    half = torch.tensor([width, height]) / 2
    grid = torch.cat([centres - half, centres + half], dim=1)
    classes = len(data.classes)
    found = {
        "boxes": grid.repeat(classes, 1), "labels": torch.arange(1, classes + 1).repeat_interleave(len(grid)),
        "scores": torch.full((classes * len(grid),), 0.5),
    }  # fmt: skip
    meter = BoxAP(data.ground_truth)
    for index in range(len(data)):
        meter.update([found], (None, [data[index][1]]))
    return meter.compute()["map50"]


FLOORS = {
    "classification": most_frequent_class,
    "segmentation": one_class_everywhere,
    "detection": the_same_boxes_everywhere,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LESSONS)
def test_a_tiny_model_learns(name: str, folder: Path, tmp_path: Path) -> None:
    reached, floor = learn(name, folder, tmp_path / "run")
    assert reached > LESSONS[name].reached > 2 * floor


def main() -> None:
    """Print what three seeds of each lesson reach."""
    root = Path(sys.argv[1])
    scenes.write(root / "scenes", images=600, validation=100, size=64, seed=0)
    for name in LESSONS:
        for seed in range(3):
            reached, floor = learn(name, root / "scenes", root / f"{name}-{seed}", seed=seed)
            print(f"{name} seed {seed}: {reached:.3f}, floor {floor:.3f}", flush=True)


if __name__ == "__main__":
    main()

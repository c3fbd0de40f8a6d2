"""detection: boxes of objects; COCO and anything laid out like it, with RetinaNet or Mask R-CNN.

harness train detection --data coco --set detection.detector=mask_rcnn --out runs/coco
harness train detection --data scenes/coco --set detection.size=128 --out runs/scenes
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness.errors import UsageError
from harness.vision import backbone, detector
from harness.vision.data import coco, transforms
from harness.vision.metrics import BoxAP
from harness.vision.pictures import boxed, spread
from harness.vision.pyramid import padded
from harness.vision.task import Data, Mechanism, Task

SHOWN_FROM = 0.5  # score of the boxes in the figure


class Options(backbone.Backbone):
    """size: the longer side of an image. pyramid: channels of pyramid and heads; finest: its first level, 2 or 3.

    prior: side of the smallest prior boxes in strides, None for the detector's own. smallest, largest: range of the
    random scale in training, relative to fitting `size`.
    """

    size: int = Field(default=512, ge=1, le=1 << 14)
    detector: Literal["retinanet", "mask_rcnn"] = "retinanet"
    pyramid: int = Field(default=256, ge=1)
    finest: int = Field(default=3, ge=2, le=5)
    prior: float | None = Field(default=None, gt=0)
    smallest: float = Field(default=0.1, gt=0)
    largest: float = Field(default=2.0, gt=0)


def data(options: Options, folder: Path | None, split: str) -> Data:
    """The images of a split with their objects."""
    if folder is None:
        raise UsageError(f"detection needs --data, a folder with {coco.LAYOUT}")
    transform = transforms.detection(
        options.size, augment=split == "train", scales=(options.smallest, options.largest)
    )  # fmt: skip
    return coco.load(folder, split, transform, masks=options.detector == "mask_rcnn" and split == "train")


def model(options: Options, mechanism: Mechanism, data: Data) -> nn.Module:
    """The detector on the transformer."""
    patch = options.patch or 16
    side = padded(options.size, 4 * patch)  # what the detector pads to: strides up to 4 patches
    vit = backbone.build(
        options.model_copy(update={"size": side}), mechanism, classes=0, dynamic_img_size=True
    )  # fmt: skip
    return detector.create(
        options.detector, backbone=vit, num_classes=len(data.classes), img_size=options.size, width=options.pyramid,
        finest=options.finest, prior_scale=options.prior,
    )  # fmt: skip


def objective(options: Options, data: Data) -> Callable[[nn.Module, Any], dict[str, Tensor]]:
    """The detector's own losses."""

    def losses(network: nn.Module, batch: Any) -> dict[str, Tensor]:
        return {name if name.startswith("loss") else f"loss_{name}": value for name, value in network(*batch).items()}

    return losses


def draw(network: nn.Module, data: Data, device: Any) -> Any:
    """Validation images with the boxes found in them and their true ones."""
    items = spread(data, 6)
    with torch.no_grad():
        answers = network([image.to(device) for image, _ in items])

    def name(label: int) -> str:
        return data.classes[label - 1]

    found = [
        [
            (box, f"{name(label)} {score:.2f}")
            for box, label, score in zip(*(answer[key].tolist() for key in ("boxes", "labels", "scores")), strict=True)
            if score >= SHOWN_FROM
        ]
        for answer in answers
    ]
    true = [
        [(box, name(label)) for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True)]
        for _, target in items
    ]
    return boxed([image for image, _ in items], found, true)


def meter(options: Options, data: Any) -> BoxAP:
    """COCO's average precision."""
    return BoxAP(data.ground_truth)


TASK = Task(
    name="detection",
    summary="boxes of objects: COCO and what is laid out like it",
    metrics=("map", "map50", "map75", "map_small", "map_medium", "map_large"),
    options=Options,
    data=data,
    model=model,
    objective=objective,
    meter=meter,
    collate=coco.collate,
    recipe={"lr": 1e-4, "batch": 16, "weight_decay": 0.1},
    draw=draw,
)

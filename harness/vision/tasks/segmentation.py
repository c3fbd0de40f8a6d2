"""segmentation: a class for each pixel; ADE20K and anything laid out like it, with Semantic FPN or UPerNet.

harness train segmentation --data ADEChallengeData2016 --set segmentation.head=upernet --out runs/ade20k
harness train segmentation --data scenes/ade20k --set segmentation.size=128 --out runs/scenes
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from harness.errors import UsageError
from harness.vision import backbone, segmenter
from harness.vision.data import ade20k, transforms
from harness.vision.metrics import MeanIoU
from harness.vision.pictures import masked, spread
from harness.vision.pyramid import padded
from harness.vision.task import Data, Mechanism, Task


class Options(backbone.Backbone):
    """size: side of the square images. pyramid: channels of pyramid and head. smallest, largest: range of the random
    scale in training, relative to fitting `size`."""

    size: int = Field(default=512, ge=1, le=1 << 14)
    head: Literal["semantic_fpn", "upernet"] = "semantic_fpn"
    pyramid: int = Field(default=256, ge=1)
    smallest: float = Field(default=0.5, gt=0)
    largest: float = Field(default=2.0, gt=0)


def data(options: Options, folder: Path | None, split: str) -> Data:
    """The images of a split with their masks."""
    if folder is None:
        raise UsageError(f"segmentation needs --data, a folder with {ade20k.LAYOUT}")
    transform = transforms.segmentation(
        options.size, augment=split == "train", scales=(options.smallest, options.largest)
    )  # fmt: skip
    return ade20k.load(folder, split, transform)


def model(options: Options, mechanism: Mechanism, data: Data) -> nn.Module:
    """The head on the transformer."""
    patch = options.patch or 16
    side = padded(options.size, 2 * patch)  # what the segmenter pads to: strides up to 2 patches
    vit = backbone.build(
        options.model_copy(update={"size": side}), mechanism, classes=0, dynamic_img_size=True
    )  # fmt: skip
    return segmenter.create(
        options.head, backbone=vit, num_classes=len(data.classes), img_size=options.size, width=options.pyramid
    )  # fmt: skip


def objective(options: Options, data: Data) -> Callable[[nn.Module, Any], dict[str, Tensor]]:
    """Cross entropy over the pixels that count."""

    def losses(network: nn.Module, batch: Any) -> dict[str, Tensor]:
        images, masks = batch
        return {"loss_pixel": segmenter.loss(network(images), masks)}

    return losses


def draw(network: nn.Module, data: Data, device: Any) -> Any:
    """Validation images, the classes found and the true ones."""
    items = spread(data, 5)
    images, masks = [image for image, _ in items], [mask for _, mask in items]
    with torch.no_grad():
        logits = network(torch.stack(images).to(device)).float().cpu()
    found = [
        nn.functional.interpolate(each[None], tuple(mask.shape), mode="bilinear", align_corners=False)[0].argmax(dim=0)
        for each, mask in zip(logits, masks, strict=True)
    ]
    return masked(images, found, masks, list(data.classes))


TASK = Task(
    name="segmentation",
    summary="a class for each pixel: ADE20K and what is laid out like it",
    metrics=("miou",),
    options=Options,
    data=data,
    model=model,
    objective=objective,
    meter=lambda options, data: MeanIoU(len(data.classes)),
    collate=ade20k.collate,
    recipe={"lr": 1e-4, "batch": 16, "schedule": "poly", "floor": 0.0},
    draw=draw,
)

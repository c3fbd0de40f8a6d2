"""Detection and instance segmentation from COCO's annotation files.

    train = coco.load(Path("coco"), "train", transforms.detection(1024, augment=True), masks=True)
    image, target = train[0]        # (3, h, w) float32 in 0…1; boxes (k, 4) xyxy in pixels, labels (k,) in 1 … K, …
    train.classes                   # K names in order of category id; label i is classes[i - 1], 0 is the background

Conventions. Images without objects stay in the training set: they are examples of background, and all losses here are
defined for them. Pictures are turned upright as their EXIF orientation says, as annotation tools show them: the file's
sizes and boxes are those of the upright picture. A crowd (iscrowd=1) is no example of one object: targets leave crowds
out, `ground_truth` keeps them, where the evaluation ignores detections inside. Boxes without extent, of which COCO has
a few, are left out likewise; boxes that cross the image's border are clipped to it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from harness.errors import UsageError, unknown
from harness.vision.data import coco_file, identity
from harness.vision.data.coco_file import Id, in_order
from harness.vision.data.reading import BadData, read_image, require_folder, some
from harness.vision.data.transforms import JointTransform, TooThin

SPLITS = ("train", "val")
LAYOUT = "FOLDER/annotations/instances_train2017.json with FOLDER/train2017/*.jpg, and the same for val2017"


@dataclass(frozen=True)
class Objects(Dataset):
    """Images with objects. `ground_truth` is the checked annotation file, as harness.vision.metrics.BoxAP takes it."""

    ground_truth: Mapping[str, Any]
    file: Path
    folder: Path
    transform: JointTransform
    masks: bool
    objects: Mapping[Id, Sequence[Mapping[str, Any]]]  # by image id, without crowds and boxes of no extent

    @property
    def classes(self) -> tuple[str, ...]:
        """The categories' names in order of id."""
        ordered = sorted(self.ground_truth["categories"], key=lambda each: in_order(each["id"]))
        return tuple(entry["name"] for entry in ordered)

    def __len__(self) -> int:
        return len(self.ground_truth["images"])

    def identity(self) -> str:
        """Twelve digits that tell these images and their objects from others: harness.vision.data.identity."""
        names = [entry["file_name"] for entry in self.ground_truth["images"]]
        truth = json.dumps(self.ground_truth, sort_keys=True).encode()
        return identity.files({name: self.folder / name for name in names}, further=truth)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        entry = self.ground_truth["images"][index]
        path = self.folder / entry["file_name"]
        picture = read_image(path)
        if picture.size != (entry["width"], entry["height"]):
            stated = f"{entry['width']}×{entry['height']}"
            turned = " (upright by its EXIF orientation)" if picture.size == (entry["height"], entry["width"]) else ""
            raise BadData(f"{path} is {picture.width}×{picture.height}{turned}, but {self.file} says {stated}")
        image = tv_tensors.Image(functional.to_image(picture))
        try:
            return self.transform(image, self._target(entry))
        except TooThin as error:
            raise BadData(f"{path}: {error}") from None

    def _target(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        objects = self.objects.get(entry["id"], ())
        ids = sorted((category["id"] for category in self.ground_truth["categories"]), key=in_order)
        labels = {category: number for number, category in enumerate(ids, start=1)}
        size = (entry["height"], entry["width"])
        boxes = torch.tensor([each["bbox"] for each in objects], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes[:, 0::2].clamp_(0, entry["width"])
        boxes[:, 1::2].clamp_(0, entry["height"])
        target: dict[str, Any] = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),  # type: ignore[call-overload]
            "labels": torch.tensor([labels[each["category_id"]] for each in objects], dtype=torch.int64),
            "image_id": entry["id"],
            "area": torch.tensor([float(each["area"]) for each in objects]),  # in the file's pixels
            "iscrowd": torch.zeros(len(objects), dtype=torch.int64),
        }
        if self.masks:
            found = [self._mask(each, *size) for each in objects]
            stacked = np.stack(found) if found else np.zeros((0, *size), np.uint8)
            target["masks"] = tv_tensors.Mask(torch.from_numpy(stacked))
        return target

    def _mask(self, each: Mapping[str, Any], height: int, width: int) -> np.ndarray:
        segmentation: Any = each.get("segmentation")
        if wrong := coco_file.segmentation_fault(segmentation, height, width):
            raise BadData(f"{self.file}: annotation {each['id']} has a segmentation that cannot be: {wrong}")
        try:
            parts: Any = rle.frPyObjects(segmentation, height, width)  # polygons or a list of counts
        except Exception:
            parts = segmentation  # encoded already, or nothing that is understood
        try:
            whole = rle.merge(parts) if isinstance(parts, list) else parts
            mask = rle.decode(whole)
            if mask.size and (mask.max() > 1 or int(mask.sum()) != int(rle.area(whole))):
                raise ValueError("its counts end before the mask does")  # what they leave open is not initialised
        except Exception as error:
            raise BadData(
                f"{self.file}: annotation {each['id']} has a segmentation that is neither polygons nor RLE ({error})"
            ) from None
        if mask.shape != (height, width):
            raise BadData(
                f"{self.file}: annotation {each['id']} has a mask of {mask.shape[1]}×{mask.shape[0]} in an image of "
                f"{width}×{height}"
            )
        return mask


def load(folder: Path, split: str, transform: JointTransform, *, masks: bool = False) -> Objects:
    """The split "train" or "val"; with masks, targets hold "masks" (k, h, w) uint8.

    The annotation file is checked whole (harness.vision.data.coco_file), and that each listed image is there.
    Raises BadData naming the file and the entry; a file that cannot be decoded raises it when it is read.
    """
    if split not in SPLITS:
        raise UsageError(unknown("split", split, SPLITS))
    require_folder(folder, layout=LAYOUT)
    found = sorted((folder / "annotations").glob(f"instances_{split}*.json"))
    if len(found) != 1:
        raise BadData(
            f"{folder / 'annotations'} has {len(found) or 'no'} files instances_{split}*.json; expected {LAYOUT}"
        )
    images = require_folder(folder / found[0].stem.removeprefix("instances_"), layout=LAYOUT)
    truth = coco_file.read(found[0], layout=LAYOUT)
    there = {path.name for path in images.iterdir()}
    names = [each["file_name"] for each in truth["images"]]
    missing = [name for name in names if name not in there and not (images / name).is_file()]  # it may be in a folder
    if missing:
        raise BadData(f"{images} lacks {some(missing)}, listed in {found[0]}")
    objects: dict[Id, list[Mapping[str, Any]]] = defaultdict(list)
    for each in truth["annotations"]:
        if not each["iscrowd"] and min(each["bbox"][2:]) > 0:
            objects[each["image_id"]].append(each)
    return Objects(
        ground_truth=truth, file=found[0], folder=images, transform=transform, masks=masks, objects=dict(objects)
    )


def collate(samples: Sequence[tuple[Tensor, dict[str, Any]]]) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """A batch as torchvision's detectors take it: a list of images of any size and a list of their targets."""
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)

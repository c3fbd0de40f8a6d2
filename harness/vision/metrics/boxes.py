"""COCO's box average precision, by pycocotools.

meter = BoxAP(dataset.ground_truth)              # the checked annotation file: harness.vision.data.coco
meter.update([{"boxes": …, "scores": …, "labels": …}], (images, [{"image_id": 139}]))
meter.compute()                                  # {"map": 0.37, "map50": 0.56, "map75": …, "map_small": …, …}
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from harness.vision.data.coco_file import Id, in_order

NAMES = ("map", "map50", "map75", "map_small", "map_medium", "map_large")  # the order of COCOeval.stats


class BoxAP:
    """AP over IoU 0.50 … 0.95, at 0.50, at 0.75, and by area: small < 32², medium < 96², large, in the file's pixels.

    Judged on the images that were given to `update`, detections or none. An image that is given twice, as samplers do
    that pad the last batch, counts once. Figures are NaN where no object of that size is in those images.
    Source: Lin et al. 2014, arXiv 1405.0312; the evaluation is pycocotools' COCOeval.
    """

    def __init__(self, ground_truth: Mapping[str, Any]) -> None:
        """`ground_truth` is a COCO annotation file's content: images, annotations (crowds too) and categories."""
        self.ground_truth: Mapping[str, Any] | None = ground_truth
        self.detections: dict[Id, np.ndarray] = {}  # image id → (k, 6): x, y, width, height, score, label

    def update(
        self, predictions: Sequence[Mapping[str, Tensor]], batch: tuple[Any, Sequence[Mapping[str, Any]]]
    ) -> None:
        """Take in a batch.

        Args:
            predictions: for each image boxes (k, 4) xyxy in the pixels of the file, scores (k,), labels (k,) where
                label i is the i-th category in order of id. k may be 0.
            batch: (anything, targets), each with "image_id".

        Raises:
            ValueError: when the numbers of predictions and targets differ or boxes, scores or labels are not finite.
        """
        targets = batch[1]
        if len(predictions) != len(targets):
            raise ValueError(f"{len(predictions)} predictions for {len(targets)} images")
        for found, target in zip(predictions, targets, strict=True):
            boxes = found["boxes"].detach().double().cpu().reshape(-1, 4)
            corner, size = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
            rest = torch.stack([found["scores"].detach().double().cpu(), found["labels"].double().cpu()], dim=1)
            rows = torch.cat([corner, size, rest], dim=1).numpy()
            image: Any = target["image_id"].item() if isinstance(target["image_id"], Tensor) else target["image_id"]
            if not np.isfinite(rows).all():
                raise ValueError(f"the detections of image {image} are not all finite")
            self.detections[image] = rows

    def merge(self, others: Sequence[Self]) -> None:
        """Take over what other processes have been given."""
        for other in others:
            self.detections.update(other.detections)

    def compute(self) -> dict[str, float]:
        """The six figures. Raises ValueError when an image, a label or the ground truth is not known."""
        if self.ground_truth is None:
            raise ValueError("this BoxAP came from another process without its ground truth: merge it into one with it")
        if not self.detections:
            return dict.fromkeys(NAMES, math.nan)
        images, categories = (_numbered(self.ground_truth[part]) for part in ("images", "categories"))
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints as it goes
            dataset = {"images": [{"id": n} for n in images.values()]}
            dataset["categories"] = [{"id": n} for n in categories.values()]
            truth = _indexed({**dataset, "annotations": _truths(self.ground_truth["annotations"], images, categories)})
            found = _indexed({**dataset, "annotations": list(self._results(images, len(categories)))})
            evaluation = COCOeval(truth, found, "bbox")
            evaluation.params.imgIds = sorted(images[image] for image in self.detections)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        # -1 stands for "no object": not a figure that anything may be averaged with
        return {
            name: math.nan if value < 0 else float(value)
            for name, value in zip(NAMES, evaluation.stats[: len(NAMES)], strict=True)
        }

    def _results(self, images: Mapping[Id, int], categories: int) -> Iterator[dict[str, Any]]:
        """Detections as loadRes would make them of a results file; it cannot make them of none."""
        strange = [image for image in self.detections if image not in images]
        if strange:
            raise ValueError(f"image_id {min(strange, key=in_order)} is not in the ground truth")
        number = 0
        for image in sorted(self.detections, key=in_order):
            for *box, score, label in self.detections[image].tolist():
                if not 1 <= label <= categories:
                    raise ValueError(f"image {image}: label {int(label)} is not in 1 … {categories}")
                number += 1
                yield {
                    "id": number, "image_id": images[image], "category_id": int(label), "bbox": box,
                    "area": box[2] * box[3], "score": score, "iscrowd": 0,
                }  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        """Sent between processes without the ground truth, which each has."""
        return {**self.__dict__, "ground_truth": None}


def _numbered(entries: Sequence[Mapping[str, Any]]) -> dict[Id, int]:
    """Numbers of our own for a file's ids, from 1 and in their order: pycocotools takes an id of 0 for "none"."""
    return {entry: number for number, entry in enumerate(sorted((each["id"] for each in entries), key=in_order), 1)}


def _truths(
    entries: Sequence[Mapping[str, Any]], images: Mapping[Id, int], categories: Mapping[Id, int]
) -> list[dict[str, Any]]:
    """The annotations as pycocotools needs them, which writes into them, numbered from 1 as they stand in the file."""
    return [
        {
            "id": number, "image_id": images[each["image_id"]], "category_id": categories[each["category_id"]],
            "bbox": each["bbox"], "area": each["area"], "iscrowd": each["iscrowd"],
        }
        for number, each in enumerate(entries, start=1)
    ]  # fmt: skip


def _indexed(dataset: Any) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco

"""COCO's box average precision, by pycocotools.

meter = BoxAP(dataset.ground_truth)              # the checked annotation file: harness.vision.data.coco
meter.update([{"boxes": …, "scores": …, "labels": …}], (images, [{"image_id": 139}]))
meter.compute()                                  # {"map": 0.37, "map50": 0.56, "map75": …, "map_small": …, …}
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

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
        self.detections: dict[int, np.ndarray] = {}  # image id → (k, 6): x, y, width, height, score, label

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
            if not np.isfinite(rows).all():
                raise ValueError(f"the detections of image {int(target['image_id'])} are not all finite")
            self.detections[int(target["image_id"])] = rows

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
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints as it goes
            truth = _indexed({part: [{**each} for each in self.ground_truth[part]] for part in _PARTS})  # it writes
            found = _indexed({**truth.dataset, "annotations": list(self._results(truth))})
            evaluation = COCOeval(truth, found, "bbox")
            evaluation.params.imgIds = sorted(self.detections)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        # -1 stands for "no object": not a figure that anything may be averaged with
        return {
            name: math.nan if value < 0 else float(value)
            for name, value in zip(NAMES, evaluation.stats[: len(NAMES)], strict=True)
        }

    def _results(self, truth: COCO) -> Any:
        """Detections as loadRes would make them of a results file; it cannot make them of none."""
        ids = sorted(truth.cats)
        strange = sorted(self.detections.keys() - truth.imgs.keys())
        if strange:
            raise ValueError(f"image_id {strange[0]} is not in the ground truth")
        number = 0
        for image_id in sorted(self.detections):
            for *box, score, label in self.detections[image_id].tolist():
                if not 1 <= label <= len(ids):
                    raise ValueError(f"image {image_id}: label {int(label)} is not in 1 … {len(ids)}")
                number += 1
                yield {
                    "id": number, "image_id": image_id, "category_id": ids[int(label) - 1], "bbox": box,
                    "area": box[2] * box[3], "score": score, "iscrowd": 0,
                }  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        """Sent between processes without the ground truth, which each has."""
        return {**self.__dict__, "ground_truth": None}


_PARTS = ("images", "annotations", "categories")


def _indexed(dataset: Any) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco

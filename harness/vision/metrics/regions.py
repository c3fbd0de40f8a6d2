"""Mean intersection over union of a data set, from one confusion matrix.

meter = MeanIoU(classes=2)
meter.update(torch.tensor([[[0, 1]]]), (images, torch.tensor([[[0, 255]]])))
meter.compute()                   # {"miou": 1.0}
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from harness.vision.data.transforms import IGNORED


class MeanIoU:
    """IoU_c = hits_c / (labelled_c + predicted_c − hits_c) over all pixels of all images; miou is their mean.

    It is not a mean over images. Pixels labelled `ignored` count nowhere. A class that is neither labelled nor
    predicted anywhere is left out of the mean; one that is predicted and never labelled counts as 0.
    Source: Everingham et al. 2015 (the PASCAL VOC measure), as ADE20K's benchmark uses it.
    """

    def __init__(self, classes: int, *, ignored: int = IGNORED) -> None:
        self.classes = classes
        self.ignored = ignored
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64)  # [label, prediction]

    def update(self, predictions: Tensor, batch: tuple[Any, Tensor | Sequence[Tensor]]) -> None:
        """Count a batch.

        Args:
            predictions: logits (b, classes, h, w), scaled to each mask's size before the highest is taken, or
                classes (b, h, w) of an integer type.
            batch: (anything, masks): (b, h, w), or a sequence of b masks of any size.

        Raises:
            ValueError: for a label or a prediction that is no class, and for sizes that differ.
        """
        masks = batch[1]
        if len(predictions) != len(masks):
            raise ValueError(f"{len(predictions)} predictions for {len(masks)} masks")
        for prediction, mask in zip(predictions, masks, strict=True):
            self._count(self._labels(prediction, mask), mask)

    def merge(self, others: Sequence[Self]) -> None:
        """Add what other processes have counted."""
        for other in others:
            self.confusion += other.confusion

    def compute(self) -> dict[str, float]:
        """{"miou"}; NaN while nothing has been counted."""
        present = [value for value in self.per_class() if not math.isnan(value)]
        return {"miou": sum(present) / len(present) if present else math.nan}

    def per_class(self) -> list[float]:
        """Each class' IoU, NaN for a class that is neither labelled nor predicted."""
        hits = self.confusion.diagonal()
        union = self.confusion.sum(0) + self.confusion.sum(1) - hits
        return [int(hit) / int(all_) if all_ else math.nan for hit, all_ in zip(hits, union, strict=True)]

    def _labels(self, prediction: Tensor, mask: Tensor) -> Tensor:
        if prediction.ndim == 3:
            if prediction.shape[0] != self.classes:
                raise ValueError(f"expected logits of {self.classes} classes, got {tuple(prediction.shape)}")
            if prediction.shape[1:] != mask.shape:
                prediction = interpolate(prediction[None].float(), mask.shape, mode="bilinear", align_corners=False)[0]
            return prediction.argmax(dim=0)
        if prediction.shape != mask.shape or prediction.is_floating_point():
            raise ValueError(
                f"expected classes of the mask's size {tuple(mask.shape)}, got {prediction.dtype} "
                f"{tuple(prediction.shape)}"
            )
        return prediction.long()

    def _count(self, prediction: Tensor, mask: Tensor) -> None:
        counted = mask != self.ignored
        label, found = mask[counted].long(), prediction[counted]
        for what, values in (("label", label), ("prediction", found)):
            if len(values) and not 0 <= int(values.min()) <= int(values.max()) < self.classes:
                raise ValueError(f"{what} {int(values.min())} … {int(values.max())} is not in 0 … {self.classes - 1}")
        pairs = torch.bincount(label * self.classes + found, minlength=self.classes**2)
        self.confusion += pairs.reshape(self.classes, self.classes).cpu()

"""Top-1 and top-5 accuracy.

meter = TopK()
meter.update(torch.tensor([[0.1, 0.7, 0.2]]), (images, torch.tensor([1])))
meter.compute()                   # {"top1": 1.0, "top5": nan}
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor

WITHIN = (1, 5)


class TopK:
    """The share of samples whose label is among the k highest logits. A tie counts against the model, as does NaN.

    So a model that gives every class the same logit scores 0, not the share of whatever class sorts first.
    top5 of five classes or fewer would be 1 by definition and is NaN.
    """

    def __init__(self) -> None:
        self.hits = dict.fromkeys(WITHIN, 0)
        self.samples = 0
        self.classes = 0

    def update(self, predictions: Tensor, batch: tuple[Any, Tensor]) -> None:
        """Count a batch: logits (b, classes) and (anything, labels (b,)). Raises ValueError for shapes and labels."""
        labels = batch[1]
        if predictions.ndim != 2 or labels.shape != predictions.shape[:1]:
            shapes = f"{tuple(predictions.shape)} and {tuple(labels.shape)}"
            raise ValueError(f"expected logits (b, classes) and labels (b,), got {shapes}")
        self.classes = predictions.shape[1]
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise ValueError(f"labels {int(labels.min())} … {int(labels.max())} are not in 0 … {self.classes - 1}")
        own = predictions.gather(1, labels[:, None])
        rank = (~(predictions < own)).sum(dim=1)  # its own place counts; what is not lower, equal or NaN, is above
        for k in WITHIN:
            self.hits[k] += int((rank <= k).sum())
        self.samples += len(labels)

    def merge(self, others: Sequence[Self]) -> None:
        """Add what other processes have counted."""
        for other in others:
            self.samples += other.samples
            self.classes = max(self.classes, other.classes)
            for k in WITHIN:
                self.hits[k] += other.hits[k]

    def compute(self) -> dict[str, float]:
        """{"top1", "top5"}; NaN before the first sample."""
        return {
            f"top{k}": self.hits[k] / self.samples if self.samples and self.classes > (k if k > 1 else 0) else math.nan
            for k in WITHIN
        }

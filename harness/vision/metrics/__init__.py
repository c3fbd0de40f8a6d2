"""How trained models are judged: each a meter that is fed batch by batch and computes over the whole data set.

    meter = MeanIoU(classes=150)
    for images, masks in loader:
        meter.update(model(images), (images, masks))
    meter.merge(others)               # the meters of other processes, as accelerate's gather_object hands them over
    meter.compute()                   # {"miou": 0.41}

TopK → top1, top5; BoxAP → map, map50, map75, map_small, map_medium, map_large; MeanIoU → miou. Shares in 0 … 1, NaN
where a figure is not defined (no object of that size, top-5 among five classes). Meters pickle to little: a BoxAP goes
without its ground truth. Only TopK and MeanIoU count what they are given twice, so processes must not be fed padding
(accelerate's `even_batches=False`).
"""

from harness.vision.metrics.boxes import BoxAP
from harness.vision.metrics.regions import MeanIoU
from harness.vision.metrics.topk import TopK

__all__ = ["BoxAP", "MeanIoU", "TopK"]

"""Torchvision's RetinaNet and Mask R-CNN on a vision transformer with any attention.

    model = create("retinanet", backbone="anchorformer_tiny", num_classes=80, img_size=1024, attention="anchor")
    losses = model(images, targets)                  # training mode: {"classification": …, "bbox_regression": …}
    found = model.eval()(images)                     # [{"boxes": (k, 4) xyxy, "scores": (k,), "labels": (k,)}, …]

Images are lists of (3, h, w) in 0…1 of any sizes. The model normalises them, scales the longer side to img_size, pads
to a square and gives boxes in each image's own pixels: so an image's result does not depend on its batch.
Labels are 1 … num_classes; 0 is the background. "Prior boxes" are what torchvision calls anchors.

Source: Lin et al. 2017, arXiv 1708.02002; He et al. 2017, arXiv 1703.06870; the pyramid is harness.vision.pyramid's.
RetinaNet's own levels are 3 … 7; here they are 2 … 6, or 3 … 6 with finest=3, which saves most of the heads' cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from torchvision.models.detection import MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import MultiScaleRoIAlign

from harness.errors import UsageError, unknown
from harness.vision.pyramid import COARSEST, FINEST, NATIVE, Pyramid, at_least_one, build_backbone, group_norm, padded

RATIOS = (0.5, 1.0, 2.0)  # height over width
BOX_SIDE, MASK_SIDE = 7, 14  # of the maps cut out for each box


def create(
    name: str,
    *,
    backbone: str | nn.Module = "anchorformer_tiny",
    num_classes: int,
    img_size: int = 1024,
    width: int = 256,
    finest: int = FINEST,
    prior_scale: float | None = None,
    score_threshold: float = 0.05,
    **options: Any,
) -> nn.Module:
    """A detector with fresh heads.

    Args:
        name: of `names()`.
        backbone: a name of harness.vision.vit, made with `options` (attention, anchors, distilled, depth, …), or a
            model made with dynamic_img_size=True.
        num_classes: of objects, without the background.
        img_size: to which the longer side of every image is scaled, in pixels.
        width: channels of the pyramid and the heads; finest: its first level.
        prior_scale: the side of a level's smallest prior boxes in strides of that level: 4 for retinanet (which adds
            two sizes a level), 8 for mask_rcnn, as published; half of that suits images of 64 to 128 pixels.
        score_threshold: detections that score less are not given.

    Raises: UsageError for a name, a size or an option of the backbone that does not exist.
    """
    if name not in DETECTORS:
        raise UsageError(unknown("detector", name, DETECTORS))
    at_least_one(num_classes=num_classes, img_size=img_size, width=width)
    model = build_backbone(backbone, img_size=img_size, multiple=2 ** (COARSEST - NATIVE), options=options)
    pyramid = Pyramid(model, width=width, finest=finest)
    common = {
        "min_size": img_size, "max_size": img_size,  # together: the longer side becomes img_size
        "size_divisible": padded(img_size, max(pyramid.strides())),
        "image_mean": list(IMAGENET_DEFAULT_MEAN), "image_std": list(IMAGENET_DEFAULT_STD),
    }  # fmt: skip
    return DETECTORS[name](pyramid, num_classes, prior_scale, score_threshold, common)


def names() -> list[str]:
    """The detectors there are."""
    return list(DETECTORS)


def prior_boxes(pyramid: Pyramid, scale: float, *, sizes: int) -> AnchorGenerator:
    """Boxes of three ratios at every place of every level, of `sizes` sides from scale · stride to below its double."""
    sides = tuple(tuple(scale * stride * 2 ** (i / sizes) for i in range(sizes)) for stride in pyramid.strides())
    return AnchorGenerator(sides, (RATIOS,) * len(sides))


def _retinanet(
    pyramid: Pyramid, num_classes: int, scale: float | None, threshold: float, common: dict[str, Any]
) -> nn.Module:
    priors = prior_boxes(pyramid, scale or 4.0, sizes=3)
    head = RetinaNetHead(
        pyramid.out_channels, priors.num_anchors_per_location()[0], num_classes + 1, norm_layer=group_norm
    )
    return RetinaNet(
        pyramid, num_classes + 1, anchor_generator=priors, head=head, score_thresh=threshold, detections_per_img=100,
        **common,
    )  # fmt: skip


def _mask_rcnn(
    pyramid: Pyramid, num_classes: int, scale: float | None, threshold: float, common: dict[str, Any]
) -> nn.Module:
    width, classes = pyramid.out_channels, num_classes + 1
    cut = [str(level) for level in pyramid.levels if level < COARSEST]
    return MaskRCNN(
        pyramid, rpn_anchor_generator=prior_boxes(pyramid, scale or 8.0, sizes=1),
        box_roi_pool=MultiScaleRoIAlign(cut, output_size=BOX_SIDE, sampling_ratio=2),
        box_head=TwoMLPHead(width * BOX_SIDE**2, 4 * width), box_predictor=FastRCNNPredictor(4 * width, classes),
        mask_roi_pool=MultiScaleRoIAlign(cut, output_size=MASK_SIDE, sampling_ratio=2),
        mask_head=MaskRCNNHeads(width, (width,) * 4, 1), mask_predictor=MaskRCNNPredictor(width, width, classes),
        box_score_thresh=threshold, **common,
    )  # fmt: skip


DETECTORS: dict[str, Callable[..., nn.Module]] = {"retinanet": _retinanet, "mask_rcnn": _mask_rcnn}

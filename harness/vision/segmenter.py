"""Semantic segmentation on a vision transformer with any attention: Semantic FPN and UPerNet heads.

    model = create("semantic_fpn", backbone="anchorformer_tiny", num_classes=150, img_size=512, attention="anchor")
    logits = model(images)                # (b, 3, H, W) normalised → (b, 150, H, W); any H and W
    loss(logits, masks)                   # cross-entropy over the pixels whose label is not 255

The heads stand on harness.vision.pyramid's levels 2 … 5 and normalise by groups, not over the batch: so an image's
result does not depend on its batch, and UPerNet's 1×1 pooled map can be trained with one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.errors import UsageError, unknown
from harness.vision.data.transforms import IGNORED
from harness.vision.pyramid import FINEST, NATIVE, Pyramid, at_least_one, build_backbone, group_norm, padded

LAST = 5
POOLED = (1, 2, 3, 6)  # sides of UPerNet's pooled maps


def create(
    name: str,
    *,
    backbone: str | nn.Module = "anchorformer_tiny",
    num_classes: int,
    img_size: int = 512,
    width: int = 256,
    **options: Any,
) -> nn.Module:
    """A segmentation model with a fresh head.

    Args:
        name: of `names()`.
        backbone: a name of harness.vision.vit, made with `options` (attention, anchors, distilled, depth, …), or a
            model made with dynamic_img_size=True.
        num_classes: without the ignored label.
        img_size: the side of training images, in pixels, for which a backbone made by name is laid out.
        width: channels of the pyramid and of UPerNet's head; Semantic FPN's has half of it.

    Raises: UsageError for a name, a size or an option of the backbone that does not exist.
    """
    if name not in HEADS:
        raise UsageError(unknown("segmenter", name, HEADS))
    at_least_one(num_classes=num_classes, img_size=img_size, width=width)
    model = build_backbone(backbone, img_size=img_size, multiple=2 ** (LAST - NATIVE), options=options)
    pyramid = Pyramid(model, width=width, coarsest=LAST)
    return Segmenter(pyramid, HEADS[name](width, num_classes))


def names() -> list[str]:
    """The segmentation heads there are."""
    return list(HEADS)


def loss(logits: Tensor, masks: Tensor | Sequence[Tensor]) -> Tensor:
    """Mean cross-entropy over all pixels that are not labelled 255; 0 where there is none.

    Args:
        logits: (b, classes, h, w). masks: (b, h, w) int64, or b masks of any size, to which logits are scaled.
    """
    if isinstance(masks, Tensor):
        total = functional.cross_entropy(logits, masks, ignore_index=IGNORED, reduction="sum")
        return total / (masks != IGNORED).sum().clamp(min=1)
    parts = [
        functional.cross_entropy(_scaled(each[None], mask.shape), mask[None], ignore_index=IGNORED, reduction="sum")
        for each, mask in zip(logits, masks, strict=True)
    ]
    return torch.stack(parts).sum() / max(1, sum(int((mask != IGNORED).sum()) for mask in masks))


class Segmenter(nn.Module):
    """A pyramid and a head: logits at the images' own resolution, whatever that is."""

    def __init__(self, pyramid: Pyramid, head: nn.Module) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) → (b, classes, H, W). Sides that strides do not divide are padded at the right and bottom."""
        height, width = images.shape[-2:]
        multiple = max(self.pyramid.strides())
        images = functional.pad(images, (0, padded(width, multiple) - width, 0, padded(height, multiple) - height))
        logits = self.head(list(self.pyramid(images).values()))
        return _scaled(logits, images.shape[-2:])[..., :height, :width]


class SemanticFPN(nn.Module):
    """Each level is brought to the finest by convolutions and doublings, and the sum is classified.

    Source: Kirillov et al. 2019, "Panoptic Feature Pyramid Networks", arXiv 1901.02446, section 3.1, figure 3.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        inner = max(1, width // 2)
        self.levels = nn.ModuleList(_brought(width, inner, level) for level in range(FINEST, LAST + 1))
        self.classifier = nn.Conv2d(inner, num_classes, kernel_size=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps of levels 2 … 5 → (b, classes, h, w) at level 2."""
        brought = [level(each) for level, each in zip(self.levels, maps, strict=True)]
        return self.classifier(torch.stack(brought).sum(dim=0))


class UPerNet(nn.Module):
    """Pyramid pooling of the coarsest level, a top-down pass, and all levels side by side, classified.

    Source: Xiao et al. 2018, "Unified Perceptual Parsing for Scene Understanding", arXiv 1807.10221, section 3.1; its
    pooling is Zhao et al. 2017, arXiv 1612.01105. Without the auxiliary head.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        levels = LAST - FINEST + 1
        self.pooled = nn.ModuleList(_convolution(width, width, 1) for _ in POOLED)
        self.coarsest = _convolution(width * (1 + len(POOLED)), width, 3)
        self.lateral = nn.ModuleList(_convolution(width, width, 1) for _ in range(levels - 1))
        self.smooth = nn.ModuleList(_convolution(width, width, 3) for _ in range(levels - 1))
        self.fuse = _convolution(width * levels, width, 3)
        self.classifier = nn.Conv2d(width, num_classes, kernel_size=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps of levels 2 … 5 → (b, classes, h, w) at level 2."""
        last = maps[-1]
        pooled = [
            _scaled(convolution(functional.adaptive_avg_pool2d(last, side)), last.shape[-2:])
            for side, convolution in zip(POOLED, self.pooled, strict=True)
        ]
        passed = [self.coarsest(torch.cat([last, *pooled], dim=1))]
        for each, lateral in zip(reversed(maps[:-1]), reversed(self.lateral), strict=True):
            passed.insert(0, lateral(each) + _scaled(passed[0], each.shape[-2:]))
        smooth = [convolution(each) for convolution, each in zip(self.smooth, passed[:-1], strict=True)]
        finest = maps[0].shape[-2:]
        return self.classifier(self.fuse(torch.cat([_scaled(each, finest) for each in [*smooth, passed[-1]]], dim=1)))


def _brought(width: int, inner: int, level: int) -> nn.Sequential:
    """From a level to the finest: a 3×3 convolution before each doubling, one where nothing is left to double."""
    doublings = level - FINEST
    steps: list[nn.Module] = []
    for number in range(max(1, doublings)):
        steps.append(_convolution(inner if number else width, inner, 3))
        if doublings:
            steps.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*steps)


def _convolution(channels: int, out: int, side: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel_size=side, padding=side // 2, bias=False),
        group_norm(out),
        nn.ReLU(inplace=True),
    )


def _scaled(maps: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return functional.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


HEADS = {"semantic_fpn": SemanticFPN, "upernet": UPerNet}

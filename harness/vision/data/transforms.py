"""What is done to a sample before the model sees it: by timm for classification, by torchvision's v2 for the rest.

    train = detection(1024, augment=True)        # (tv_tensors.Image, target) -> (float image in 0…1, target)
    final = classification(224, augment=False)   # PIL image -> normalised (3, 224, 224)

Everything random draws from the global generators: timm's transforms from Python's `random` (and NumPy's, AutoAugment),
torchvision's from PyTorch's. Without augmentation nothing is random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from PIL import Image
from timm.data import auto_augment as policies
from timm.data import create_transform
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from harness.errors import UsageError

IGNORED = 255
PADDING = tuple(round(255 * value) for value in IMAGENET_DEFAULT_MEAN)  # zero once it is normalised


class TooThin(ValueError):
    """A picture whose shorter side has no pixel left once the longer one is scaled; the message tells its size."""


ImageTransform = Callable[[Image.Image], Tensor]
JointTransform = Callable[[Any, Any], tuple[Any, Any]]


def classification(
    img_size: int,
    *,
    augment: bool,
    flip: bool = True,
    smallest_crop: float = 0.08,
    auto_augment: str | None = "rand-m9-mstd0.5-inc1",
    erase: float = 0.25,
    crop: float = 0.875,
) -> ImageTransform:
    """DeiT's training transform, or resize and centre crop, by timm: PIL → (3, img_size, img_size) normalised.

    Args:
        flip: mirror half of the images; wrong for digits and letters.
        smallest_crop: least share of the area that a random crop keeps; 1 keeps the whole image.
        auto_augment: timm's name of a policy, None for none. erase: share of images with a rectangle erased.
        crop: without augmentation, the share of the resized image's side that the centre crop keeps.

    Raises UsageError for a policy that timm does not know.
    """
    if not augment:
        return cast(
            ImageTransform,
            create_transform(img_size, is_training=False, interpolation="bicubic", crop_pct=crop),
        )
    try:
        transform: Any = create_transform(
            img_size, is_training=True, interpolation="bicubic", scale=(smallest_crop, 1.0), hflip=0.5 if flip else 0.0,
            color_jitter=0.0 if auto_augment is None else 0.4, auto_augment=auto_augment, re_prob=erase,
            re_mode="pixel",
        )  # fmt: skip
    except (AssertionError, ValueError) as error:  # how timm refuses a policy
        raise UsageError(
            f"classification.augment {auto_augment!r} is no policy of timm's ({error}); for example "
            "rand-m9-mstd0.5-inc1, augmix-m5-w4-d2, original or 3a"
        ) from None
    for operation in _operations(transform.transforms):
        if operation.aug_fn is policies.posterize:
            operation.aug_fn = _posterize
    return cast(ImageTransform, transform)


def detection(img_size: int, *, augment: bool, scales: tuple[float, float] = (0.1, 2.0)) -> JointTransform:
    """(Image uint8, target) → (float32 image in 0…1, target of plain tensors); the detector itself normalises.

    With augmentation: mirrored, scaled by a random factor in `scales` relative to fitting img_size, then cropped or
    padded to img_size × img_size (large-scale jitter, Ghiasi et al. 2021, arXiv 2012.07177); boxes that lose all their
    extent go. Without: nothing but the type changes, the detector scales images and returns boxes in their own pixels.
    Raises TooThin.
    """
    steps: list[Any] = [_Wide(img_size * min(1.0, scales[0]) if augment else img_size)]
    if augment:
        fill = {tv_tensors.Image: PADDING, tv_tensors.Mask: 0}
        steps += [
            v2.RandomHorizontalFlip(),
            v2.ScaleJitter((img_size, img_size), scale_range=scales, antialias=True),
            v2.RandomCrop((img_size, img_size), pad_if_needed=True, fill=fill),  # type: ignore[arg-type]
            v2.ClampBoundingBoxes(),
            v2.SanitizeBoundingBoxes(labels_getter=_beside_boxes),
        ]
    return v2.Compose([*steps, v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True), _plain])


def segmentation(img_size: int, *, augment: bool, scales: tuple[float, float] = (0.5, 2.0)) -> JointTransform:
    """(Image uint8, Mask (h, w)) → (normalised (3, img_size, img_size), int64 mask with 255 where nothing counts).

    With augmentation: mirrored, scaled at random, cropped or padded, colours jittered; the mask has the image's size.
    Without: padded to a square at the bottom or right and the image scaled to img_size, while the mask keeps its own
    resolution: predictions are scaled to it and judged there. Raises TooThin.
    """
    normalise = v2.Compose([
        v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
        v2.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    ])  # fmt: skip
    fill: dict[Any, Any] = {tv_tensors.Image: PADDING, tv_tensors.Mask: IGNORED}
    steps = v2.Compose([
        _Wide(img_size * min(1.0, scales[0])), v2.RandomHorizontalFlip(),
        v2.ScaleJitter((img_size, img_size), scale_range=scales, antialias=True),
        v2.RandomCrop((img_size, img_size), pad_if_needed=True, fill=fill),
        v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3),
    ])  # fmt: skip

    def apply(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if augment:
            image, mask = steps(image, mask)
        else:
            height, width = mask.shape[-2:]
            missing = [0, 0, max(0, height - width), max(0, width - height)]  # left, top, right, bottom
            image = functional.pad(image, missing, fill=list(PADDING))
            mask = functional.pad(mask, missing, fill=IGNORED)
            image = functional.resize(image, [img_size, img_size], antialias=True)
        image, mask = normalise(image, mask)
        return image.as_subclass(Tensor), mask.as_subclass(Tensor).long()

    return apply


class _Wide:
    """Refuses a picture of which scaling may leave nothing, whatever the scale that is drawn."""

    def __init__(self, longest: float) -> None:
        self.longest = longest

    def __call__(self, image: Tensor, target: Any) -> tuple[Tensor, Any]:
        height, width = image.shape[-2:]
        if int(min(height, width) * (self.longest / max(height, width))) < 1:
            raise TooThin(f"{width}×{height} is too thin: nothing is left of it at {self.longest:g} pixels a side")
        return image, target


def _operations(parts: Any) -> Iterator[Any]:
    """The single operations inside timm's policies, however deep."""
    for part in parts:
        if isinstance(part, policies.AugmentOp):
            yield part
        elif isinstance(part, list | tuple):
            yield from _operations(part)
        else:
            yield from _operations([*getattr(part, "ops", ()), *getattr(part, "policy", ())])


def _posterize(image: Image.Image, bits_to_keep: int, **how: Any) -> Image.Image:
    """timm's, with one bit kept where the drawn magnitude leaves none: Pillow 13 refuses 0, which earlier was black."""
    return policies.posterize(image, max(1, bits_to_keep), **how)


def _beside_boxes(sample: tuple[Any, dict[str, Any]]) -> tuple[Tensor, ...]:
    return tuple(sample[1][key] for key in ("labels", "area", "iscrowd"))


def _plain(image: Tensor, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    """Without torchvision's subclasses, which would pay at every operation of the model."""
    return image.as_subclass(Tensor), {
        key: value.as_subclass(Tensor) if isinstance(value, Tensor) else value for key, value in target.items()
    }

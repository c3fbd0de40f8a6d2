"""Semantic segmentation laid out as ADE20K (the scene parsing benchmark, ADEChallengeData2016).

    train = ade20k.load(Path("ADEChallengeData2016"), "train", transforms.segmentation(512, augment=True))
    image, mask = train[0]          # (3, 512, 512) float32; (512, 512) int64 in 0 … 149, 255 where nothing counts

In the files 0 is "other" and 1 … K are the classes. Here 0 becomes 255 (ignored) and k becomes k − 1 ("reduce zero
label"), so that K classes are learnt and judged, as the benchmark does; 255 in a file is ignored too.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from harness.errors import UsageError, unknown
from harness.store import opening
from harness.vision.data import identity
from harness.vision.data.reading import BadData, images_in, read_image, read_mask, require_folder, some
from harness.vision.data.transforms import IGNORED, JointTransform, TooThin

FOLDERS = {"train": "training", "val": "validation"}
LAYOUT = (
    "FOLDER/images/training/*.jpg and FOLDER/annotations/training/*.png of the same names, the same under validation, "
    "and the classes in FOLDER/objectInfo150.txt"
)
MOST_CLASSES = 150  # when no objectInfo file counts them


@dataclass(frozen=True)
class Scenes(Dataset):
    """Images with a class for each pixel. `images[i]` belongs to `annotations[i]`."""

    classes: tuple[str, ...]
    images: tuple[Path, ...]
    annotations: tuple[Path, ...]
    transform: JointTransform

    def __len__(self) -> int:
        return len(self.images)

    def identity(self) -> str:
        """Twelve digits that tell these images and masks from others: harness.vision.data.identity."""
        pairs = zip(self.images, self.annotations, strict=True)
        listing = {f"{place}/{path.name}": path for pair in pairs for place, path in zip("im", pair, strict=True)}
        return identity.files(listing, further=repr(self.classes).encode())

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = tv_tensors.Image(functional.to_image(read_image(self.images[index])))
        mask = self._mask(index)
        if mask.shape[-2:] != image.shape[-2:]:
            sizes = " and ".join("×".join(map(str, each.shape[-2:])) for each in (mask, image))
            raise BadData(f"{self.annotations[index]}: its size and that of {self.images[index]} differ ({sizes})")
        try:
            return self.transform(image, mask)
        except TooThin as error:
            raise BadData(f"{self.images[index]}: {error}") from None

    def _mask(self, index: int) -> tv_tensors.Mask:
        path = self.annotations[index]
        values = read_mask(path)
        strange = [int(value) for value in np.unique(values) if len(self.classes) < value != IGNORED]
        if strange:
            raise BadData(
                f"{path}: class {some([str(value) for value in strange])} is out of range; valid: 0 (other), "
                f"1 … {len(self.classes)}, and {IGNORED} (ignored)"
            )
        reduced = np.where(values == 0, IGNORED, values - 1)
        return tv_tensors.Mask(torch.from_numpy(np.where(values == IGNORED, IGNORED, reduced).astype(np.uint8)))


def load(folder: Path, split: str, transform: JointTransform) -> Scenes:
    """The split "train" or "val". Raises BadData: layout, an image without annotation or the reverse, names of classes.

    A file that cannot be decoded, a class out of range and sizes that differ raise it when they are read.
    """
    if split not in FOLDERS:
        raise UsageError(unknown("split", split, FOLDERS))
    require_folder(folder, layout=LAYOUT)
    pictures = images_in(folder / "images" / FOLDERS[split], layout=LAYOUT)
    marked = folder / "annotations" / FOLDERS[split]
    masks = {path.stem: path for path in images_in(marked, layout=LAYOUT)}
    without = [path.name for path in pictures if path.stem not in masks]
    if without:
        raise BadData(f"{marked} has no annotation for the image {some(without)}; expected {LAYOUT}")
    missing = sorted(masks.keys() - {path.stem for path in pictures})
    if missing:
        raise BadData(f"{pictures[0].parent} has no image for the annotation {some(missing)}; expected {LAYOUT}")
    return Scenes(
        classes=_classes(folder), images=tuple(pictures), annotations=tuple(masks[path.stem] for path in pictures),
        transform=transform,
    )  # fmt: skip


def collate(samples: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor | list[Tensor]]:
    """A batch: images (b, 3, h, w); masks (b, h, w), or a list of them where their sizes differ (without augmentation).

    harness.vision.segmenter's loss and harness.vision.metrics.MeanIoU take either.
    """
    images, masks = (list(part) for part in zip(*samples, strict=True))
    same = all(mask.shape == masks[0].shape for mask in masks)
    return torch.stack(images), torch.stack(masks) if same else masks


def _classes(folder: Path) -> tuple[str, ...]:
    """The column Name of objectInfo*.txt, tab-separated; numbered classes when there is no such file."""
    found = sorted(folder.glob("objectInfo*.txt"))
    if not found:
        return tuple(f"class {number}" for number in range(1, MOST_CLASSES + 1))
    try:
        text = opening.read(found[0], most=1 << 20, links=True).decode("utf-8-sig")
        rows = list(csv.DictReader(text.splitlines(), delimiter="\t"))
        names = tuple(row["Name"].strip() for row in rows)
    except (KeyError, AttributeError, csv.Error, UnicodeDecodeError, OSError):
        names = ()
    if not 0 < len(names) < IGNORED:
        raise BadData(f"{found[0]}: expected tab-separated lines with a column Name, one for each of 1 … 254 classes")
    return names

"""Images in a folder a class (ImageFolder, ImageNet), and scikit-learn's digits, a real set that needs no file.

train = classification.load(Path("imagenet"), "train", transforms.classification(224, augment=True))
image, label = train[0]          # (3, 224, 224) float32, int; train.classes[label] is the class' folder
digits = classification.digits("val", transforms.classification(32, augment=False, crop=1.0))
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets.folder import make_dataset

from harness.errors import UsageError, unknown
from harness.vision.data import identity
from harness.vision.data.reading import IMAGE_SUFFIXES, BadData, is_hidden, is_image, read_image, require_folder, some
from harness.vision.data.transforms import ImageTransform

SPLITS = ("train", "val")
LAYOUT = "FOLDER/train/CLASS/*.jpg and FOLDER/val/CLASS/*.jpg, a folder a class"
DIGITS_TRAIN = 1437  # of 1797: the last fifth, other writers' than the first, is for validation


@dataclass(frozen=True)
class Images(Dataset):
    """Labelled images: `files` below `folder`, or `pixels`, hold them, `labels` their index into `classes`."""

    classes: tuple[str, ...]
    labels: tuple[int, ...]
    transform: ImageTransform
    files: tuple[Path, ...] = ()
    folder: Path | None = None
    pixels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def identity(self) -> str:
        """Twelve digits that tell these images from others: harness.vision.data.identity."""
        further = repr((self.classes, self.labels)).encode() + (b"" if self.pixels is None else self.pixels.tobytes())
        root = self.folder or Path()
        return identity.files({str(path.relative_to(root)): path for path in self.files}, further=further)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = read_image(self.files[index]) if self.pixels is None else Image.fromarray(self.pixels[index])
        return self.transform(image.convert("RGB")), self.labels[index]


def load(folder: Path, split: str, transform: ImageTransform) -> Images:
    """The split "train" or "val" of a folder laid out as ImageNet; labels are the order of train's class folders.

    Raises BadData: a missing folder or split, no class folders, a class without images, a class in val that train
    lacks. A file that cannot be decoded raises it when it is read.
    """
    if split not in SPLITS:
        raise UsageError(unknown("split", split, SPLITS))
    require_folder(folder, layout=LAYOUT)
    classes = _class_folders(folder / "train")
    if split != "train":
        strange = sorted(set(_class_folders(folder / split)) - set(classes))
        if strange:
            raise BadData(f"{folder / split} has the class {some(strange)}, which {folder / 'train'} lacks")
    try:
        found = make_dataset(
            folder / split, {name: index for index, name in enumerate(classes)},
            is_valid_file=lambda path: is_image(Path(path), folder / split), allow_empty=split != "train",
        )  # fmt: skip
    except FileNotFoundError:  # a class of train without an image
        empty = [name for name in classes if not _has_image(folder / split / name)]
        raise BadData(f"{folder / split}: no image in the class {some(empty)} ({', '.join(IMAGE_SUFFIXES)})") from None
    if not found:
        raise BadData(f"{folder / split} holds no image; expected {LAYOUT}")
    return Images(
        classes=classes, labels=tuple(label for _, label in found), transform=transform,
        files=tuple(Path(path) for path, _ in found), folder=folder / split,
    )  # fmt: skip


def digits(split: str, transform: ImageTransform) -> Images:
    """The 1797 handwritten digits of scikit-learn, 8×8, ten classes: the first 1437 to train, the rest to validate.

    The order of the set is that of its writers, so no writer of the validation part is seen in training, but for one.
    Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI.
    """
    if split not in SPLITS:
        raise UsageError(unknown("split", split, SPLITS))
    from sklearn.datasets import load_digits

    data, labels = load_digits(return_X_y=True)
    part = slice(None, DIGITS_TRAIN) if split == "train" else slice(DIGITS_TRAIN, None)
    pixels = (data.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    return Images(
        classes=tuple(str(digit) for digit in range(10)), labels=tuple(int(label) for label in labels[part]),
        transform=transform, pixels=pixels[part],
    )  # fmt: skip


def _class_folders(folder: Path) -> tuple[str, ...]:
    require_folder(folder, layout=LAYOUT)
    names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)))
    if not names:
        raise BadData(f"{folder} has no class folders; expected {LAYOUT}")
    return names


def _has_image(folder: Path) -> bool:
    return any(is_image(path, folder) for path in folder.rglob("*"))

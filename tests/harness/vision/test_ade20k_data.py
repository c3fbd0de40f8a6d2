"""ADE20K's folders: zero and 255 do not count, resolutions are kept, and damaged files are named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from harness.errors import UsageError
from harness.vision.data import ade20k, transforms
from harness.vision.data.reading import BadData

PLAIN = transforms.segmentation(32, augment=False)
NAMES = "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0\t0\t0\t1\twall\n2\t0\t0\t0\t0\tdoor, double\n3\t0\t0\t0\t0\tbed\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One image of 40×30 in each split; the mask's quarters are 0, 1, 3 and 255."""
    mask = np.zeros((30, 40), np.uint8)
    mask[:15, 20:], mask[15:, :20], mask[15:, 20:] = 1, 3, 255
    for split in ("training", "validation"):
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "annotations" / split).mkdir(parents=True)
        Image.fromarray(np.stack([mask] * 3, axis=2)).save(tmp_path / "images" / split / "a.jpg", quality=100)
        Image.fromarray(mask).save(tmp_path / "annotations" / split / "a.png")
    (tmp_path / "objectInfo3.txt").write_text(NAMES)
    return tmp_path


def test_zero_and_255_are_ignored_and_classes_count_from_zero(folder: Path) -> None:
    data = ade20k.load(folder, "val", PLAIN)
    assert data.classes == ("wall", "door, double", "bed")
    image, mask = data[0]
    assert (image.shape, image.dtype, mask.dtype) == ((3, 32, 32), torch.float32, torch.int64)
    quarters = [mask[:15, :20], mask[:15, 20:40], mask[15:30, :20], mask[15:30, 20:40]]
    assert [quarter.unique().tolist() for quarter in quarters] == [[255], [0], [2], [255]]


def test_without_augmentation_the_mask_keeps_its_resolution_in_a_padded_square(folder: Path) -> None:
    image, mask = ade20k.load(folder, "val", PLAIN)[0]
    assert mask.shape == (40, 40)
    assert (mask[30:] == 255).all()
    assert image[:, 26:].abs().max() < 0.02, "padding is the mean colour, zero once normalised"


def test_classes_are_numbered_where_no_file_names_them(folder: Path) -> None:
    (folder / "objectInfo3.txt").unlink()
    assert len(ade20k.load(folder, "train", PLAIN).classes) == 150


def test_masks_follow_the_pixels_through_augmentation(folder: Path) -> None:
    """The image's grey is the mask's own value: where the mask says 255 after the crop, it is bright or padding."""
    data = ade20k.load(folder, "train", transforms.segmentation(48, augment=True))
    for seed in range(6):
        torch.manual_seed(seed)
        image, mask = data[0]
        assert image.shape == (3, 48, 48)
        assert mask.shape == (48, 48)
        counted = mask != 255
        assert set(mask.unique().tolist()) <= {0, 2, 255}
        assert counted.any()
        dark, bright = image[0][counted].median(), image[0].max()
        assert dark < bright - 1


def test_batches_of_equal_masks_are_stacked_and_others_are_lists(scene_sets: Path, folder: Path) -> None:
    data = ade20k.load(scene_sets / "ade20k", "val", PLAIN)
    images, masks = next(iter(DataLoader(data, batch_size=4, collate_fn=ade20k.collate)))
    assert (images.shape, masks.shape) == ((4, 3, 32, 32), (4, 48, 48))
    mixed = [data[0], ade20k.load(folder, "val", PLAIN)[0]]
    images, masks = ade20k.collate(mixed)
    assert images.shape == (2, 3, 32, 32)
    assert [mask.shape for mask in masks] == [(48, 48), (40, 40)]


def test_generated_scenes_are_read_whole(scene_sets: Path) -> None:
    data = ade20k.load(scene_sets / "ade20k", "train", transforms.segmentation(48, augment=False))
    values = torch.cat([data[i][1].unique() for i in range(len(data))]).unique().tolist()
    assert values == [*range(11), 255]
    assert data.classes[:4] == ("sand", "water", "grass", "disc")


def test_a_class_out_of_range_is_named(folder: Path) -> None:
    path = folder / "annotations/training/a.png"
    Image.fromarray(np.full((30, 40), 4, np.uint8)).save(path)
    with pytest.raises(BadData) as error:
        ade20k.load(folder, "train", PLAIN)[0]
    assert str(error.value) == f"{path}: class 4 is out of range; valid: 0 (other), 1 … 3, and 255 (ignored)"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda root: (root / "annotations/training/a.png").write_bytes(b""), r"a\.png: not a readable annotation"),
        (lambda root: (root / "images/training/a.jpg").write_bytes(b"\xff\xd8"), r"a\.jpg: not a readable image"),
        (
            lambda root: Image.new("L", (9, 9)).save(root / "annotations/training/a.png"),
            r"a\.png: its size and that of .*a\.jpg differ \(9×9 and 30×40\)",
        ),
        (
            lambda root: Image.new("RGB", (40, 30)).save(root / "annotations/training/a.png"),
            "an annotation has one channel of 8 bits, this is RGB",
        ),
    ],
)
def test_a_damaged_file_is_named(folder: Path, harm: Callable[[Path], None], said: str) -> None:
    harm(folder)
    data = ade20k.load(folder, "train", PLAIN)
    with pytest.raises(BadData, match=said):
        data[0]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda root: shutil.rmtree(root), "is missing; expected FOLDER/images/training"),
        (lambda root: shutil.rmtree(root / "annotations"), "annotations/training is missing; expected"),
        (lambda root: (root / "images/training/a.jpg").unlink(), "images/training holds no image"),
        (
            lambda root: shutil.copy(root / "images/training/a.jpg", root / "images/training/b.jpg"),
            "annotations/training has no annotation for the image b.jpg",
        ),
        (
            lambda root: shutil.copy(root / "annotations/training/a.png", root / "annotations/training/b.png"),
            "images/training has no image for the annotation b",
        ),
        (lambda root: (root / "objectInfo3.txt").write_text("Name of things\n1\n"), "objectInfo3.txt: expected tab-"),
        (lambda root: (root / "objectInfo3.txt").write_text(""), "objectInfo3.txt: expected tab-separated lines"),
    ],
)
def test_a_wrong_layout_is_named(folder: Path, harm: Callable[[Path], None], said: str) -> None:
    harm(folder)
    with pytest.raises(BadData) as error:
        ade20k.load(folder, "train", PLAIN)
    assert said in str(error.value)
    assert str(folder) in str(error.value)


def test_an_unknown_split_is_answered_with_the_valid(folder: Path) -> None:
    with pytest.raises(UsageError, match="unknown split 'vall'; did you mean 'val'"):
        ade20k.load(folder, "vall", PLAIN)

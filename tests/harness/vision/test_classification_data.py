"""Class folders and digits: what is read, and what is said of folders and files that are wrong."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from harness.errors import UsageError
from harness.vision.data import classification, transforms
from harness.vision.data.reading import BadData, read_image
from harness.vision.recipe import seed_everything

PLAIN = transforms.classification(32, augment=False, crop=1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, two images each, in train and val; the class' number is the image's brightness."""
    for split in ("train", "val"):
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (40, 30), (200 * number,) * 3).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def test_labels_are_the_order_of_the_class_folders(folder: Path) -> None:
    for split in ("train", "val"):
        data = classification.load(folder, split, PLAIN)
        assert data.classes == ("cat", "dog")
        assert len(data) == 4
        images, labels = zip(*(data[i] for i in range(4)), strict=True)
        assert labels == (0, 0, 1, 1)
        assert all(image.shape == (3, 32, 32) and image.dtype == torch.float32 for image in images)
        assert images[0].mean() < images[2].mean()


def test_val_has_the_labels_of_train_even_where_it_lacks_a_class(folder: Path) -> None:
    shutil.rmtree(folder / "val" / "cat")
    assert set(classification.load(folder, "val", PLAIN).labels) == {1}


def test_generated_scenes_are_read(scene_sets: Path) -> None:
    data = classification.load(scene_sets / "classes", "train", PLAIN)
    assert (len(data), len(data.classes)) == (38, 6)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda root: shutil.rmtree(root), "is missing; expected FOLDER/train/CLASS"),
        (lambda root: shutil.rmtree(root / "train"), "train is missing; expected FOLDER/train/CLASS"),
        (lambda root: [shutil.rmtree(root / "train" / c) for c in ("cat", "dog")], "train has no class folders"),
        (lambda root: [p.unlink() for p in (root / "train/cat").iterdir()], "train: no image in the class cat"),
        (lambda root: shutil.copytree(root / "val/cat", root / "val/newt"), "val has the class newt, which"),
        (lambda root: [p.unlink() for p in (root / "val").rglob("*.png")], "val holds no image"),
    ],
)
def test_a_wrong_folder_is_named_with_the_layout(folder: Path, harm: Callable[[Path], None], said: str) -> None:
    harm(folder)
    with pytest.raises(BadData) as error:
        classification.load(folder, "val" if "val" in said else "train", PLAIN)
    assert said in str(error.value)
    assert str(folder) in str(error.value)


def test_an_unknown_split_is_answered_with_the_valid() -> None:
    with pytest.raises(UsageError, match="unknown split 'tran'; did you mean 'train'"):
        classification.digits("tran", PLAIN)


@pytest.mark.parametrize("harm", ["truncate", "text", "empty"])
def test_a_corrupt_image_is_named(folder: Path, harm: str) -> None:
    path = folder / "train" / "dog" / "1.png"
    content = {"truncate": path.read_bytes()[:60], "text": b"not an image", "empty": b""}[harm]
    path.write_bytes(content)
    data = classification.load(folder, "train", PLAIN)
    with pytest.raises(BadData, match="not a readable image") as error:
        data[3]
    assert str(error.value).startswith(f"{path}: ")


def test_a_half_jpeg_is_corrupt_not_grey(tmp_path: Path) -> None:
    """Pillow can be told to fill in what is missing of a file: here it must not."""
    (tmp_path / "train" / "a").mkdir(parents=True)
    path = tmp_path / "train" / "a" / "x.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(BadData, match="truncated"):
        classification.load(tmp_path, "train", PLAIN)[0]


def test_a_worker_process_passes_on_the_sentence_alone(folder: Path) -> None:
    path = folder / "train" / "dog" / "1.png"
    path.write_bytes(b"")
    loader = DataLoader(classification.load(folder, "train", PLAIN), batch_size=4, num_workers=1)
    with pytest.raises(BadData) as error:
        next(iter(loader))
    assert str(error.value).startswith(f"{path}: not a readable image")
    assert "Traceback" not in str(error.value)


def test_a_palette_or_grey_image_becomes_rgb(folder: Path) -> None:
    Image.new("P", (8, 8), 3).save(folder / "train" / "cat" / "0.png")
    Image.new("L", (8, 8), 3).save(folder / "train" / "cat" / "1.png")
    data = classification.load(folder, "train", PLAIN)
    assert data[0][0].shape == data[1][0].shape == (3, 32, 32)


def test_digits_are_split_without_overlap_and_read_as_they_are() -> None:
    from sklearn.datasets import load_digits

    parts = [classification.digits(split, PLAIN) for split in ("train", "val")]
    assert [len(part) for part in parts] == [1437, 360]
    labels = load_digits().target.tolist()
    assert [*parts[0].labels, *parts[1].labels] == labels
    image, label = parts[1][0]
    expected = np.kron(load_digits().images[1437], np.ones((4, 4)))
    assert label == labels[1437]
    assert np.corrcoef(image[0].numpy().ravel(), expected.ravel())[0, 1] > 0.9


def test_augmentation_is_random_and_follows_the_global_seeds() -> None:
    transform = transforms.classification(32, augment=True)
    data = classification.digits("train", transform)

    def drawn(seed: int) -> torch.Tensor:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        return data[0][0]

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_no_flip_and_a_whole_crop_leave_a_digit_readable() -> None:
    """An arrow that points right still points right."""
    arrow = np.zeros((8, 8, 3), np.uint8)
    arrow[:, 5:] = 255
    transform = transforms.classification(32, augment=True, flip=False, smallest_crop=1.0, auto_augment=None, erase=0.0)
    for seed in range(20):
        random.seed(seed)
        image = transform(Image.fromarray(arrow))
        assert image[0, :, 16:].mean() > image[0, :, :16].mean()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_whatever_is_damaged_in_a_file_it_is_read_or_named(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / f"x{suffix}"
    Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    named = []
    for _ in range(60):
        damaged = bytearray(whole[: rng.integers(len(whole)) if rng.random() < 0.3 else None])
        for place in rng.integers(0, min(len(damaged), 80) or 1, 3):
            if damaged:
                damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert read_image(path).mode == "RGB"
        except BadData as error:
            named.append(str(error))
    assert len(named) > 5
    assert all(said.startswith(f"{path}: ") for said in named)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "rand-m15-mmax30-inc1", "v0", "original", "3a"])
def test_no_draw_of_a_policy_fails(policy: str) -> None:
    """timm asks for 0 bits of a posterised picture in 3 of 1000 draws of DeiT's, which Pillow 13 refuses."""
    transform = transforms.classification(32, augment=True, auto_augment=policy)
    picture = Image.fromarray((np.arange(40 * 40 * 3) % 256).astype(np.uint8).reshape(40, 40, 3))
    for step in range(5000 if policy == "rand-m9-mstd0.5-inc1" else 500):
        seed_everything(0, 1, step)
        assert bool(torch.isfinite(transform(picture)).all())


def test_one_bit_is_kept_where_a_draw_leaves_none() -> None:
    picture = Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8))
    assert np.asarray(transforms._posterize(picture, 0)).tolist() == [[0, 0, 128, 128]]
    assert np.asarray(transforms._posterize(picture, 8)).tolist() == [[0, 127, 128, 255]]


@pytest.mark.parametrize("policy", ["foo", "rand-z9", "originalz", "augmix-q1"])
def test_a_policy_that_timm_does_not_know_is_named(policy: str) -> None:
    with pytest.raises(UsageError, match=f"classification.augment '{policy}' is no policy of timm's"):
        transforms.classification(32, augment=True, auto_augment=policy)

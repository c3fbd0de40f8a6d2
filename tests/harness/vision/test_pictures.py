"""Pictures as cameras, microscopes and annotation tools leave them, and folders as systems do: read right, or named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.vision.data import ade20k, classification, coco, transforms
from harness.vision.data.reading import ORIENTATION, BadData, read_image, read_mask

RAMP = np.linspace(0, 1, 256)[None].repeat(8, axis=0)
SHAPE = (24, 40)  # rows and columns, upright
CORNER = np.zeros(SHAPE, np.uint8)
CORNER[2:8, 4:16] = 255  # where the object is


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels that a camera writes beside that orientation: the inverse of what a viewer does."""
    turned = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.swapaxes(0, 1),
        6: upright.swapaxes(0, 1)[::-1], 7: upright[::-1, ::-1].swapaxes(0, 1), 8: upright.swapaxes(0, 1)[:, ::-1],
    }  # fmt: skip
    return np.ascontiguousarray(turned[orientation])


def save(pixels: np.ndarray, orientation: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(stored(pixels, orientation)).save(path, exif=exif)


@pytest.mark.parametrize(
    ("pixels", "name"),
    [
        ((RAMP * 65535).round().astype(np.uint16), "grey.png"),
        ((RAMP * 65535).round().astype(np.uint16), "grey.tif"),
        ((RAMP * 65535).round().astype(">u2"), "grey.tif"),
        ((RAMP * 255).round().astype(np.uint8), "grey.png"),
        ((RAMP * 255).round().astype(np.uint8), "grey.tif"),
    ],
)
def test_grey_of_8_and_16_bits_is_the_same_picture(tmp_path: Path, pixels: np.ndarray, name: str) -> None:
    """A full ramp has the mean 127.5; clipped at 255 of 65535 it was 254.5."""
    Image.fromarray(pixels).save(tmp_path / name)
    picture = read_image(tmp_path / name)
    assert picture.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(picture)[..., 1], (RAMP * 255).round())
    assert np.asarray(picture).mean() == pytest.approx(127.5)


@pytest.mark.parametrize(("kind", "said"), [(np.float32, "floating-point"), (np.int32, "32-bit")])
def test_pixels_of_unknown_range_are_refused_by_name(tmp_path: Path, kind: type, said: str) -> None:
    path = tmp_path / "depth.tif"
    Image.fromarray((RAMP * 1000).astype(kind)).save(path)
    with pytest.raises(BadData, match=rf"depth\.tif: its pixels are {said} numbers.*8 or 16 bits"):
        read_image(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_other_modes_are_the_picture(tmp_path: Path, mode: str) -> None:
    black = Image.new("RGB", (8, 8)).convert("L" if mode in ("1", "LA", "PA") else "RGB")
    picture = black.convert("P").convert("PA") if mode == "PA" else black.convert(mode)
    picture.save(tmp_path / "a.tif")
    assert np.asarray(read_image(tmp_path / "a.tif")).max() == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_in_every_task(tmp_path: Path, orientation: int) -> None:
    """The object's pixels lie in its box and under its mask, and a classifier sees it where a person does."""
    rgb = np.stack([CORNER] * 3, axis=-1)
    for split in ("train", "val"):
        save(rgb, orientation, tmp_path / "classes" / split / "a" / "0.png")
    save(rgb, orientation, tmp_path / "coco" / "train2017" / "0.png")
    for split in ("training", "validation"):
        save(rgb, orientation, tmp_path / "ade" / "images" / split / "0.png")
        save(CORNER // 255, orientation, tmp_path / "ade" / "annotations" / split / "0.png")
    height, width = SHAPE
    truth = {
        "images": [{"id": 0, "file_name": "0.png", "width": width, "height": height}],
        "categories": [{"id": 0, "name": "a"}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 0, "bbox": [4, 2, 12, 6]}],
    }  # fmt: skip
    (tmp_path / "coco" / "annotations").mkdir()
    (tmp_path / "coco" / "annotations" / "instances_train2017.json").write_text(json.dumps(truth))

    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "coco" / "train2017" / "0.png")), rgb)
    image, target = coco.load(tmp_path / "coco", "train", transforms.detection(64, augment=False))[0]
    left, top, right, bottom = (int(side) for side in target["boxes"][0])
    assert image[:, top:bottom, left:right].min() == 1
    assert image.sum() == 3 * (bottom - top) * (right - left)

    scenes = ade20k.load(tmp_path / "ade", "val", transforms.segmentation(width, augment=False))
    image, mask = scenes[0]
    assert torch.equal(image[0] > 1, mask == 0), "white is 2.2 once it is normalised"
    np.testing.assert_array_equal(read_mask(scenes.annotations[0]), CORNER // 255)

    seen, _ = classification.load(tmp_path / "classes", "val", lambda picture: torch.tensor(np.asarray(picture)))[0]
    np.testing.assert_array_equal(seen.numpy(), rgb)


def test_a_file_that_means_its_stored_size_is_told_why_it_differs(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    save(np.stack([CORNER] * 3, axis=-1), 6, tmp_path / "train2017" / "0.png")
    truth = {
        "images": [{"id": 0, "file_name": "0.png", "width": SHAPE[0], "height": SHAPE[1]}],
        "categories": [{"id": 0, "name": "a"}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 0, "bbox": [4, 2, 12, 6]}],
    }  # fmt: skip
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(truth))
    with pytest.raises(BadData, match=r"0\.png is 40×24 \(upright by its EXIF orientation\), but .* says 24×40"):
        coco.load(tmp_path, "train", transforms.detection(64, augment=False))[0]


def test_a_damaged_exif_part_leaves_the_picture(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), "white").save(tmp_path / "a.jpg", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff broken")
    assert read_image(tmp_path / "a.jpg").size == (8, 6)


HIDDEN = ("._0.png", ".hidden.png", ".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/0.png", "@eaDir/0.png")


def litter(folder: Path) -> None:
    """What systems leave beside pictures: named as images, and none."""
    for name in HIDDEN:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\x00\x05\x16\x07 not a picture")


def test_hidden_files_and_folders_are_no_data_in_any_layout(tmp_path: Path, scene_sets: Path) -> None:
    import shutil

    sets = tmp_path / "sets"
    shutil.copytree(scene_sets, sets)
    loads = {
        "classes": lambda: classification.load(sets / "classes", "train", transforms.classification(8, augment=False)),
        "coco": lambda: coco.load(sets / "coco", "train", transforms.detection(48, augment=False)),
        "ade20k": lambda: ade20k.load(sets / "ade20k", "train", transforms.segmentation(48, augment=False)),
    }
    before = {name: (len(load()), load().classes, load().identity()) for name, load in loads.items()}
    for folder in [sets, *(path for path in sets.rglob("*") if path.is_dir())]:
        litter(folder)
    for path in (sets / "coco" / "annotations" / "._instances_train2017.json", sets / "ade20k" / "._objectInfo11.txt"):
        path.write_bytes(b"\x00\x05\x16\x07")
    for name, load in loads.items():
        data = load()
        assert (len(data), data.classes, data.identity()) == before[name]
        data[0]


def test_a_class_of_hidden_files_alone_is_named(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / split / "a" / "0.png")
    (tmp_path / "train" / "b").mkdir()
    litter(tmp_path / "train" / "b")
    with pytest.raises(BadData, match="no image in the class b"):
        classification.load(tmp_path, "train", transforms.classification(8, augment=False))


@pytest.mark.parametrize("size", [(640, 6), (6, 640)])
def test_a_picture_too_thin_to_be_scaled_is_answered_by_its_name(tmp_path: Path, size: tuple[int, int]) -> None:
    """Whatever scale is drawn, so that a training does not end at its thousandth step."""
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"{split}2017").mkdir()
        Image.new("RGB", size).save(tmp_path / f"{split}2017" / "0.png")
        truth = {
            "images": [{"id": 0, "file_name": "0.png", "width": size[0], "height": size[1]}],
            "categories": [{"id": 0, "name": "a"}],
            "annotations": [{"id": 0, "image_id": 0, "category_id": 0, "bbox": [0, 0, 5, 5]}],
        }  # fmt: skip
        (tmp_path / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(truth))
    for seed in range(8):
        torch.manual_seed(seed)
        with pytest.raises(BadData, match=rf"0\.png: {size[0]}×{size[1]} is too thin"):
            coco.load(tmp_path, "train", transforms.detection(224, augment=True))[0]
    with pytest.raises(BadData, match=r"0\.png: .* too thin: nothing is left of it at 64 pixels"):
        coco.load(tmp_path, "val", transforms.detection(64, augment=False))[0]
    image, _ = coco.load(tmp_path, "val", transforms.detection(224, augment=False))[0]
    assert image.shape == (3, size[1], size[0])


@pytest.mark.parametrize("size", [(640, 3), (3, 640)])
def test_a_scene_too_thin_to_be_scaled_is_answered_by_its_name(tmp_path: Path, size: tuple[int, int]) -> None:
    for split in ("training", "validation"):
        for part, mode in (("images", "RGB"), ("annotations", "L")):
            (tmp_path / part / split).mkdir(parents=True)
            Image.new(mode, size, 1 if mode == "L" else "white").save(tmp_path / part / split / "0.png")
    for seed in range(8):
        torch.manual_seed(seed)
        with pytest.raises(BadData, match=rf"images/training/0\.png: {size[0]}×{size[1]} is too thin"):
            ade20k.load(tmp_path, "train", transforms.segmentation(224, augment=True))[0]
    assert ade20k.load(tmp_path, "val", transforms.segmentation(224, augment=False))[0][0].shape == (3, 224, 224)

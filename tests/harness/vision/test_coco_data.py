"""COCO's files: targets, crowds, images without objects, and what is said of damaged annotations."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from torch.utils.data import DataLoader

from harness.errors import UsageError
from harness.vision.data import coco, transforms
from harness.vision.data.reading import BadData, read_image

PLAIN = transforms.detection(32, augment=False)
FILE = "annotations/instances_train2017.json"


def content() -> dict[str, Any]:
    """Three images: two objects (one a crowd), one object, none; categories whose ids have gaps and no order."""
    blob = np.zeros((24, 32), np.uint8, order="F")
    blob[4:10, 6:20] = 1
    encoded = rle.encode(blob)
    encoded["counts"] = encoded["counts"].decode()
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 32, "height": 24} for n in (7, 8, 9)],
        "categories": [{"id": 40, "name": "kite"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 40, "bbox": [6.0, 4.0, 14.0, 6.0], "area": 84,
             "segmentation": encoded, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0.0, 0.0, 10.0, 10.0], "area": 50,
             "segmentation": {"size": [24, 32], "counts": [0, 100, 668]}, "iscrowd": 1},
            {"id": 3, "image_id": 8, "category_id": 3, "bbox": [2.0, 3.0, 8.0, 9.0], "area": 72,
             "segmentation": [[2, 3, 10, 3, 10, 12, 2, 12]], "iscrowd": 0},
        ],
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2017").mkdir()
    for number in (7, 8, 9):
        Image.new("RGB", (32, 24), (10 * number,) * 3).save(tmp_path / "train2017" / f"{number}.png")
    (tmp_path / FILE).write_text(json.dumps(content()))
    return tmp_path


def test_targets_are_what_torchvision_takes(folder: Path) -> None:
    data = coco.load(folder, "train", PLAIN, masks=True)
    assert data.classes == ("car", "kite")
    image, target = data[0]
    assert (image.shape, image.dtype, float(image.max())) == ((3, 24, 32), torch.float32, pytest.approx(70 / 255))
    assert target["boxes"].tolist() == [[6, 4, 20, 10]]
    assert target["labels"].tolist() == [2], "labels count from 1 in order of category id, whatever the file's order"
    assert target["image_id"] == 7
    assert type(target["boxes"]) is type(target["masks"]) is torch.Tensor
    assert target["masks"].shape == (1, 24, 32)
    assert target["masks"][0, 4:10, 6:20].all()
    assert target["masks"].sum() == 84


def test_a_polygon_becomes_a_mask(folder: Path) -> None:
    _, target = coco.load(folder, "train", PLAIN, masks=True)[1]
    assert target["masks"][0, 3:12, 2:10].all()
    assert target["masks"].sum() == 72


def test_a_crowd_is_no_target_but_stays_in_the_ground_truth(folder: Path) -> None:
    data = coco.load(folder, "train", PLAIN)
    assert len(data[0][1]["labels"]) == 1
    assert [each["iscrowd"] for each in data.ground_truth["annotations"]] == [0, 1, 0]


def test_an_image_without_objects_stays(folder: Path) -> None:
    data = coco.load(folder, "train", PLAIN, masks=True)
    assert len(data) == 3
    target = data[2][1]
    assert (target["boxes"].shape, target["labels"].shape, target["masks"].shape) == ((0, 4), (0,), (0, 24, 32))
    assert target["labels"].dtype == torch.int64


def test_a_box_without_extent_is_left_out(folder: Path) -> None:
    changed = content()
    changed["annotations"][2]["bbox"][3] = 0
    (folder / FILE).write_text(json.dumps(changed))
    assert len(coco.load(folder, "train", PLAIN)[1][1]["boxes"]) == 0


def test_a_box_across_the_border_is_clipped(folder: Path) -> None:
    changed = content()
    changed["annotations"][2]["bbox"] = [-3, 20, 10, 10]
    (folder / FILE).write_text(json.dumps(changed))
    assert coco.load(folder, "train", PLAIN)[1][1]["boxes"].tolist() == [[0, 20, 7, 24]]


def test_an_image_may_be_listed_in_a_folder(folder: Path) -> None:
    changed = content()
    changed["images"][0]["file_name"] = "part/7.png"
    (folder / FILE).write_text(json.dumps(changed))
    (folder / "train2017/part").mkdir()
    (folder / "train2017/7.png").rename(folder / "train2017/part/7.png")
    assert coco.load(folder, "train", PLAIN)[0][0].shape == (3, 24, 32)


def test_optional_fields_may_be_absent(folder: Path) -> None:
    changed = content()
    for each in changed["annotations"]:
        del each["area"], each["iscrowd"]
    (folder / FILE).write_text(json.dumps(changed))
    data = coco.load(folder, "train", PLAIN)
    assert data[1][1]["area"].tolist() == [72.0]


def test_a_batch_is_two_lists(scene_sets: Path) -> None:
    data = coco.load(scene_sets / "coco", "train", transforms.detection(48, augment=True), masks=True)
    torch.manual_seed(0)
    for images, targets in DataLoader(data, batch_size=8, collate_fn=coco.collate):
        assert [image.shape for image in images] == [(3, 48, 48)] * 8
        for target in targets:
            k = len(target["boxes"])
            assert target["masks"].shape == (k, 48, 48)
            assert len(target["labels"]) == len(target["area"]) == len(target["iscrowd"]) == k
            assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()
            assert (target["boxes"] >= 0).all()
            assert (target["boxes"] <= 48).all()


def test_boxes_follow_the_pixels_through_augmentation(tmp_path: Path) -> None:
    """A white square on black: after jitter, crop and flip its box is still where the white is."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2017").mkdir()
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[8:28, 12:36] = 255
    Image.fromarray(pixels).save(tmp_path / "train2017" / "1.png")
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [12, 8, 24, 20], "area": 480,
                  "segmentation": [[12, 8, 36, 8, 36, 28, 12, 28]], "iscrowd": 0}  # fmt: skip
    truth = {"images": [{"id": 1, "file_name": "1.png", "width": 60, "height": 40}],
             "categories": [{"id": 1, "name": "a"}], "annotations": [annotation]}  # fmt: skip
    (tmp_path / FILE).write_text(json.dumps(truth))
    data = coco.load(tmp_path, "train", transforms.detection(48, augment=True, scales=(0.5, 1.5)), masks=True)
    seen = 0
    for seed in range(12):
        torch.manual_seed(seed)
        image, target = data[0]
        if not len(target["boxes"]):
            continue
        seen += 1
        rows, columns = torch.nonzero(image[0] > 0.7, as_tuple=True)
        white = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (target["boxes"][0] - white).abs().max() <= 1.5
        assert ((image[0] > 0.7) ^ target["masks"][0].bool()).float().mean() < 0.06
    assert seen >= 8


def at(*path: Any, value: Any = None, delete: bool = False) -> Callable[[dict[str, Any]], None]:
    """A change of an annotation file at a path of keys."""

    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        if delete:
            del data[path[-1]]
        else:
            data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (at("annotations", 0, "category_id", value=99), "annotation 1: category_id 99 is out of range; valid: 3, 40"),
        (at("annotations", 0, "image_id", value=1), "annotation 1: image_id 1 is not listed under images"),
        (at("annotations", 0, "bbox", delete=True), "annotation 1: bbox is None, not four numbers"),
        (at("annotations", 0, "bbox", value=[1, 2, 3]), "annotation 1: bbox is [1, 2, 3], not four numbers"),
        (at("annotations", 0, "bbox", value=[1, 2, float("nan"), 3]), "annotation 1: bbox is [1, 2, nan, 3]"),
        (at("annotations", 0, "bbox", value=[5, 5, -3, 4]), "annotation 1: bbox [5, 5, -3, 4] has a negative extent"),
        (at("annotations", 0, "bbox", value=[40, 5, 9, 4]), "lies outside its image of 32×24"),
        (at("annotations", 0, "area", value=-1), "annotation 1: area is -1"),
        (at("annotations", 0, "iscrowd", value=2), "annotation 1: iscrowd is 2, not 0 or 1"),
        (at("annotations", 1, "id", value=1), "the id 1 is that of two annotations"),
        (at("categories", 1, "id", value=40), "the id 40 is that of two categories"),
        (at("annotations", 0, value="text"), "annotation at position 0 is no object"),
        (at("annotations", 0, "id", value=7.5), "annotation at position 0 is no object with a whole number or a text"),
        (at("annotations", 0, "image_id", value=["7"]), "annotation 1: image_id ['7'] is not listed under images"),
        (at("images", 0, "width", value=0), "image 7: width is 0"),
        (
            at("images", 0, "width", value=10**20),
            "image 7: width is 100000000000000000000, not a whole number from 1 to",
        ),
        (at("images", 0, "width", value=10**400), "not JSON (a number has 401 digits)"),
        (at("images", 0, "id", value=[7]), "image at position 0 is no object with a whole number or a text as id"),
        (at("annotations", 0, "image_id", value=[7]), "annotation 1: image_id [7] is not listed under images"),
        (at("annotations", 0, "category_id", value={"a": 1}), "annotation 1: category_id {'a': 1} is out of range"),
        (at("annotations", 0, "bbox", value=[1, 2, 1e300, 3]), "annotation 1: bbox is [1, 2, 1e+300, 3]"),
        (at("images", 0, "file_name", value="../../etc/passwd"), "'../../etc/passwd', which leaves the folder"),
        (at("images", 0, "file_name", value="a/../../b.png"), "'a/../../b.png', which leaves the folder"),
        (at("images", 0, "file_name", value="/etc/passwd"), "'/etc/passwd', which leaves the folder"),
        (at("images", 0, "file_name", value="a\0b"), "image 7: file_name is 'a\\x00b'"),
        (at("images", 0, "file_name", value="x" * 300), "image 7: file_name is 'xxx"),
        (at("images", 0, "file_name", value=""), "image 7: file_name is ''"),
        (at("categories", 0, "name", delete=True), "category 40: name is None"),
        (at("annotations", value=[]), "the list annotations is empty"),
        (at("images", delete=True), "expected an object with the lists images, annotations, categories; images"),
    ],
)
def test_a_damaged_entry_is_named(folder: Path, change: Callable[[dict[str, Any]], None], said: str) -> None:
    changed = content()
    change(changed)
    (folder / FILE).write_text(json.dumps(changed))
    with pytest.raises(BadData) as error:
        coco.load(folder, "train", PLAIN)
    assert said in str(error.value)
    assert str(error.value).startswith(str(folder / FILE))


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "the file is empty"), ("  \n", "the file is empty"), ('{"images": [', "not JSON"), ("[]", "expected an obj"),
     ("\x00\xff", "not JSON")],
)  # fmt: skip
def test_a_file_that_is_no_annotation_is_named(folder: Path, text: str, said: str) -> None:
    (folder / FILE).write_text(text)
    with pytest.raises(BadData, match=said) as error:
        coco.load(folder, "train", PLAIN)
    assert str(folder / FILE) in str(error.value)


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        [[1, 2]],
        [["a"] * 6],
        {"size": [24, 32]},
        {"size": [24, 32], "counts": [5, 5]},
        {"size": [24, 32], "counts": "!!"},
        {"size": [24, 32], "counts": [-5, 700]},
        {"size": [5, 5], "counts": [25]},
        "text",
        7,
    ],
)
def test_a_damaged_segmentation_is_named_when_masks_are_asked_for(folder: Path, segmentation: object) -> None:
    changed = content()
    changed["annotations"][0]["segmentation"] = segmentation
    (folder / FILE).write_text(json.dumps(changed))
    assert len(coco.load(folder, "train", PLAIN)[0][1]["boxes"]) == 1, "boxes do not need it"
    with pytest.raises(BadData, match="annotation 1 has a") as error:
        coco.load(folder, "train", PLAIN, masks=True)[0]
    assert str(folder / FILE) in str(error.value)


def test_a_listed_image_that_is_missing_is_named(folder: Path) -> None:
    (folder / "train2017" / "8.png").unlink()
    with pytest.raises(BadData, match=r"lacks 8\.png, listed in"):
        coco.load(folder, "train", PLAIN)


def test_a_corrupt_image_is_named(folder: Path) -> None:
    (folder / "train2017" / "8.png").write_bytes(b"\x89PNG")
    with pytest.raises(BadData, match=r"8\.png: not a readable image"):
        coco.load(folder, "train", PLAIN)[1]


def test_an_image_of_another_size_than_listed_is_named(folder: Path) -> None:
    Image.new("RGB", (30, 24)).save(folder / "train2017" / "8.png")
    with pytest.raises(BadData, match=r"8\.png is 30×24, but .* says 32×24"):
        coco.load(folder, "train", PLAIN)[1]


def test_a_missing_set_says_the_layout(folder: Path) -> None:
    with pytest.raises(BadData, match="is missing; expected FOLDER/annotations/instances_train2017"):
        coco.load(folder / "elsewhere", "train", PLAIN)
    with pytest.raises(BadData, match=r"has no files instances_val\*.json; expected FOLDER/annotations"):
        coco.load(folder, "val", PLAIN)
    (folder / FILE).rename(folder / "annotations/instances_train2014.json")
    with pytest.raises(BadData, match="train2014 is missing; expected"):
        coco.load(folder, "train", PLAIN)
    with pytest.raises(UsageError, match="unknown split 'test'"):
        coco.load(folder, "test", PLAIN)


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ([[1e12, 0, 5, 5, 0, 5]], "whose points are no numbers near the image"),
        ([[0, 0, 5, 5, 0, -4000]], "whose points are no numbers near the image"),
        ({"size": [1 << 20, 1 << 20], "counts": "PPP"}, "its mask has the size [1048576, 1048576] in an image of"),
        ({"size": [24, 32], "counts": [1 << 40]}, "its counts are [1099511627776]"),
    ],
)
def test_a_mask_that_would_take_all_memory_is_named(folder: Path, segmentation: Any, said: str) -> None:
    """What is allocated for it goes by the file's word alone, in C."""
    changed = content()
    changed["annotations"][0]["segmentation"] = segmentation
    (folder / FILE).write_text(json.dumps(changed))
    with pytest.raises(BadData) as error:
        coco.load(folder, "train", PLAIN, masks=True)[0]
    assert said in str(error.value)


def test_pipes_in_a_set_are_not_waited_for(folder: Path) -> None:
    (folder / FILE).unlink()
    os.mkfifo(folder / FILE)
    with pytest.raises(BadData, match=r"cannot be read \(it is a pipe, not a file\)"):
        coco.load(folder, "train", PLAIN)
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(BadData, match=r"not a readable image \(it is a pipe, not a file\)"):
        read_image(folder / "pipe.png")

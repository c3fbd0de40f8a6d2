"""Meters agree with torchmetrics and pycocotools, merge, and survive the ends: nothing found, nothing there."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex
from torchmetrics.detection import MeanAveragePrecision

from harness.store.record import TASK_UNITS
from harness.vision.metrics import BoxAP, MeanIoU, TopK

Detections = dict[str, Tensor]
IDS = (5, 11, 90)  # of categories: with gaps


def boxes(count: int, generator: torch.Generator, *, largest: float) -> Tensor:
    """Random boxes xyxy in an image of 400 pixels."""
    corner = 250 * torch.rand(count, 2, generator=generator)
    return torch.cat([corner, corner + 4 + (largest - 4) * torch.rand(count, 2, generator=generator) ** 2], dim=1)


def problem(seed: int, images: int = 12) -> tuple[dict[str, Any], list[Detections], list[dict[str, Any]]]:
    """Ground truth with crowds and images without objects; detections near it, beside it, and for some images none."""
    generator = torch.Generator().manual_seed(seed)
    truth: dict[str, Any] = {
        "images": [{"id": 100 + i, "width": 400, "height": 400, "file_name": f"{i}.jpg"} for i in range(images)],
        "categories": [{"id": category, "name": str(category)} for category in IDS], "annotations": [],
    }  # fmt: skip
    predictions = []
    for i in range(images):
        count = int(torch.randint(0, 7, (1,), generator=generator))
        real = boxes(count, generator, largest=150)
        labels = torch.randint(1, 4, (count,), generator=generator)
        for box, label in zip(real.tolist(), labels.tolist(), strict=True):
            side = [box[2] - box[0], box[3] - box[1]]
            crowd = int(torch.rand(1, generator=generator) < 0.1)
            truth["annotations"].append({
                "id": len(truth["annotations"]) + 1, "image_id": 100 + i, "category_id": IDS[label - 1],
                "bbox": [*box[:2], *side], "area": 0.8 * side[0] * side[1], "iscrowd": crowd,
            })  # fmt: skip
        near = real + 0.06 * (real[:, 2:] - real[:, :2]).repeat(1, 2) * torch.randn(count, 4, generator=generator)
        beside = boxes(3, generator, largest=150)
        found = torch.cat([near, beside]) if i % 4 else torch.zeros(0, 4)
        names = torch.cat([labels, torch.randint(1, 4, (3,), generator=generator)])[: len(found)]
        scores = torch.rand(len(found), generator=generator)
        predictions.append({"boxes": found, "labels": names, "scores": scores})
    return truth, predictions, [{"image_id": entry["id"]} for entry in truth["images"]]


def official(truth: dict[str, Any], predictions: list[Detections], targets: list[dict[str, Any]]) -> list[float]:
    """The figures by pycocotools from a results file's content, as its documentation goes about it."""
    results = [
        {"image_id": target["image_id"], "category_id": IDS[int(label) - 1], "score": float(score),
         "bbox": [float(box[0]), float(box[1]), float(box[2]) - float(box[0]), float(box[3]) - float(box[1])]}
        for found, target in zip(predictions, targets, strict=True)
        for box, label, score in zip(found["boxes"], found["labels"], found["scores"], strict=True)
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO()
        ground.dataset = copy.deepcopy(truth)  # type: ignore[assignment]
        ground.createIndex()
        evaluation = COCOeval(ground, ground.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) if value >= 0 else math.nan for value in evaluation.stats[:6]]


RENAMED = {
    "from 0": lambda n: n,
    "negative": lambda n: n - 1000,
    "huge": lambda n: (1 << 70) + 7 * n,
    "with gaps": lambda n: n * n + 3,
    "texts": lambda n: f"id-{n:04d}",
}


@pytest.mark.parametrize("how", RENAMED)
def test_whatever_ids_a_file_has_the_figures_are_the_same(how: str) -> None:
    """pycocotools takes a match with the annotation of id 0 for no match, and keeps ids as floats."""
    rename = RENAMED[how]
    truth, predictions, targets = problem(1)
    expected = BoxAP(truth)
    expected.update(predictions, (None, targets))
    parts = ("images", "annotations", "categories")
    names = {part: {old: rename(new) for new, old in enumerate(sorted(e["id"] for e in truth[part]))} for part in parts}
    renamed = {part: [{**each, "id": names[part][each["id"]]} for each in truth[part]] for part in parts}
    for each in renamed["annotations"]:
        each["image_id"] = names["images"][each["image_id"]]
        each["category_id"] = names["categories"][each["category_id"]]
    meter = BoxAP(renamed)
    meter.update(predictions, (None, [{"image_id": names["images"][t["image_id"]]} for t in targets]))
    assert meter.compute() == expected.compute()


def test_a_perfect_detector_is_perfect_where_ids_start_at_0() -> None:
    """Four boxes with the ids 0 to 3: 0.564 where the annotation 0 counts as missed."""
    real = torch.tensor([[10.0 * i, 10.0, 10.0 * i + 8, 60.0] for i in range(4)])
    truth = {
        "images": [{"id": 0}], "categories": [{"id": 0, "name": "a"}],
        "annotations": [
            {"id": i, "image_id": 0, "category_id": 0, "bbox": [10.0 * i, 10.0, 8.0, 50.0], "area": 400, "iscrowd": 0}
            for i in range(4)
        ],
    }  # fmt: skip
    meter = BoxAP(truth)
    found = {"boxes": real, "labels": torch.ones(4), "scores": torch.tensor([0.9, 0.8, 0.7, 0.6])}
    meter.update([found], (None, [{"image_id": torch.tensor(0)}]))
    assert meter.compute()["map"] == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_box_ap_agrees_with_pycocotools_and_torchmetrics(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    truth, predictions, targets = problem(seed)
    meter = BoxAP(truth)
    for start in range(0, len(targets), 5):
        meter.update(predictions[start : start + 5], (None, targets[start : start + 5]))
    figures = meter.compute()
    assert capsys.readouterr().out == ""
    assert list(figures.values()) == pytest.approx(official(truth, predictions, targets), abs=1e-12, nan_ok=True)
    assert 0.05 < figures["map"] < figures["map50"] < 1

    thresholds = {
        "iou_thresholds": np.linspace(0.5, 0.95, 10).tolist(),
        "rec_thresholds": np.linspace(0, 1, 101).tolist(),
    }
    other = MeanAveragePrecision(box_format="xyxy", **thresholds)  # its own are rounded to float32, pycocotools' not
    for found, target in zip(predictions, targets, strict=True):
        mine = [each for each in truth["annotations"] if each["image_id"] == target["image_id"]]
        real = torch.tensor([each["bbox"] for each in mine]).reshape(-1, 4)
        real[:, 2:] += real[:, :2]
        entry = {
            "boxes": real, "labels": torch.tensor([IDS.index(each["category_id"]) + 1 for each in mine]).long(),
            "iscrowd": torch.tensor([each["iscrowd"] for each in mine]).long(),
            "area": torch.tensor([each["area"] for each in mine]),
        }  # fmt: skip
        other.update([found], [entry])
    theirs = other.compute()
    names = {"map": "map", "map50": "map_50", "map75": "map_75", "map_small": "map_small", "map_medium": "map_medium"}
    for mine_name, name in names.items():
        assert figures[mine_name] == pytest.approx(float(theirs[name]), abs=1e-6), name


def test_perfect_boxes_are_one_and_figures_without_objects_are_nan() -> None:
    truth, _, targets = problem(0)
    for each in truth["annotations"]:
        each["bbox"][2:] = [20.0, 20.0]
        each["area"] = 400.0
        each["iscrowd"] = 0
    predictions = []
    for target in targets:
        mine = [each for each in truth["annotations"] if each["image_id"] == target["image_id"]]
        real = torch.tensor([each["bbox"] for each in mine], dtype=torch.float64).reshape(-1, 4)
        real[:, 2:] += real[:, :2]
        labels = torch.tensor([IDS.index(each["category_id"]) + 1 for each in mine]).long()
        predictions.append({"boxes": real, "labels": labels, "scores": torch.ones(len(mine))})
    meter = BoxAP(truth)
    meter.update(predictions, (None, targets))
    figures = meter.compute()
    assert [figures[name] for name in ("map", "map50", "map75", "map_small")] == pytest.approx([1] * 4)
    assert math.isnan(figures["map_medium"])
    assert math.isnan(figures["map_large"])


def test_no_detections_at_all_are_zero() -> None:
    truth, _, targets = problem(1)
    meter = BoxAP(truth)
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    meter.update([empty] * len(targets), (None, targets))
    figures = meter.compute()
    assert figures["map"] == figures["map50"] == figures["map75"] == 0
    assert all(math.isnan(value) for value in BoxAP(truth).compute().values()), "nothing judged is not 0"


def test_only_the_images_given_are_judged_and_one_given_twice_counts_once() -> None:
    truth, predictions, targets = problem(2)
    part = BoxAP(truth)
    part.update(predictions[1:4], (None, targets[1:4]))
    part.update(predictions[2:4], (None, targets[2:4]))
    kept = {target["image_id"] for target in targets[1:4]}
    smaller = {
        **truth, "images": [each for each in truth["images"] if each["id"] in kept],
        "annotations": [each for each in truth["annotations"] if each["image_id"] in kept],
    }  # fmt: skip
    assert list(part.compute().values())[:3] == pytest.approx(official(smaller, predictions[1:4], targets[1:4])[:3])


def test_ground_truth_is_left_as_it_was() -> None:
    truth, predictions, targets = problem(3)
    before = json.dumps(truth)
    meter = BoxAP(truth)
    meter.update(predictions, (None, targets))
    assert meter.compute() == meter.compute()
    assert json.dumps(truth) == before


@pytest.mark.parametrize(
    ("found", "image", "said"),
    [
        ({"labels": torch.tensor([4])}, 100, "label 4 is not in 1 … 3"),
        ({"labels": torch.tensor([0])}, 100, "label 0 is not in 1 … 3"),
        ({}, 7, "image_id 7 is not in the ground truth"),
        ({"boxes": torch.tensor([[0.0, 0.0, math.nan, 1.0]])}, 100, "not all finite"),
    ],
)
def test_box_ap_refuses_what_it_cannot_judge(found: Detections, image: int, said: str) -> None:
    truth, _, _ = problem(0)
    one = {"boxes": torch.ones(1, 4), "labels": torch.tensor([1]), "scores": torch.ones(1), **found}
    meter = BoxAP(truth)
    with pytest.raises(ValueError, match=said):
        meter.update([one], (None, [{"image_id": image}])) or meter.compute()
    with pytest.raises(ValueError, match="0 predictions for 1 images"):
        meter.update([], (None, [{"image_id": 100}]))


@pytest.mark.parametrize("seed", range(3))
def test_mean_iou_agrees_with_torchmetrics(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 5, 16, 12, generator=generator)
    masks = torch.randint(0, 4, (6, 16, 12), generator=generator)  # class 4 is never labelled, and predicted
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = 255
    mine, theirs = MeanIoU(5), MulticlassJaccardIndex(5, average="macro", ignore_index=255)
    for part in (slice(0, 4), slice(4, 6)):
        mine.update(logits[part], (None, masks[part]))
        theirs.update(logits[part], masks[part])
    assert mine.compute()["miou"] == pytest.approx(float(theirs.compute()), abs=1e-6)
    assert mine.per_class()[4] == 0


def test_mean_iou_is_of_the_data_set_and_leaves_out_absent_classes() -> None:
    """By hand: class 0 hits 3 of 4 labelled, 5 predicted; class 1 hits 2 of 4, 3 predicted; class 2 is nowhere."""
    label = torch.tensor([[[0, 0, 0, 0]], [[1, 1, 1, 1]], [[255, 255, 255, 255]]])
    found = torch.tensor([[[0, 0, 0, 1]], [[0, 0, 1, 1]], [[2, 2, 2, 2]]])
    meter = MeanIoU(3)
    meter.update(found, (None, label))
    assert meter.per_class()[:2] == [3 / 6, 2 / 5]
    assert math.isnan(meter.per_class()[2])
    assert meter.compute() == {"miou": pytest.approx(0.45)}
    by_image = (3 / 4 + 2 / 4) / 2
    assert meter.compute()["miou"] != pytest.approx(by_image)


def test_mean_iou_judges_at_the_masks_own_resolution() -> None:
    mask = torch.zeros(9, 7, dtype=torch.int64)
    mask[:, 4:] = 1
    logits = torch.zeros(2, 3, 3)
    logits[1, :, 2] = 1.0
    logits[0, :, :2] = 1.0
    meter = MeanIoU(2)
    meter.update(logits[None].repeat(2, 1, 1, 1), (None, [mask, mask[:3]]))
    assert int(meter.confusion.sum()) == 9 * 7 + 3 * 7
    assert meter.compute()["miou"] == pytest.approx((4 / 5 + 2 / 3) / 2), "the border, at 2/3 of 7, is in column 4"


def test_mean_iou_with_nothing_to_count_is_nan() -> None:
    meter = MeanIoU(3)
    assert math.isnan(meter.compute()["miou"])
    meter.update(torch.zeros(1, 3, 2, 2), (None, torch.full((1, 2, 2), 255)))
    assert math.isnan(meter.compute()["miou"])


@pytest.mark.parametrize(
    ("found", "masks", "said"),
    [
        (torch.zeros(1, 3, 2, 2), torch.full((1, 2, 2), 3), "label 3 … 3 is not in 0 … 2"),
        (torch.full((1, 2, 2), 3), torch.zeros(1, 2, 2, dtype=torch.int64), "prediction 3 … 3 is not in 0 … 2"),
        (torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64), "expected logits of 3 classes"),
        (torch.zeros(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64), "expected classes of the mask's size"),
        (torch.zeros(2, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64), "2 predictions for 1 masks"),
    ],
)
def test_mean_iou_refuses_what_it_cannot_count(found: Tensor, masks: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MeanIoU(3).update(found, (None, masks))


@pytest.mark.parametrize("classes", [10, 100])
def test_top_k_agrees_with_torchmetrics(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(200, classes, generator=generator)
    labels = torch.randint(0, classes, (200,), generator=generator)
    meter = TopK()
    for part in (slice(0, 150), slice(150, 200)):
        meter.update(logits[part], (None, labels[part]))
    for k in (1, 5):
        theirs = MulticlassAccuracy(classes, top_k=k, average="micro")(logits, labels)
        assert meter.compute()[f"top{k}"] == pytest.approx(float(theirs))


def test_ties_and_nan_are_misses() -> None:
    """A network that has collapsed to one constant, or to NaN, scores nothing by the order of its classes."""
    meter = TopK()
    meter.update(torch.zeros(8, 8), (None, torch.arange(8)))
    meter.update(torch.full((8, 8), math.nan), (None, torch.arange(8)))
    assert meter.compute() == {"top1": 0.0, "top5": 0.0}


def test_top5_of_five_classes_and_anything_of_nothing_are_nan() -> None:
    meter = TopK()
    assert all(math.isnan(value) for value in meter.compute().values())
    meter.update(torch.eye(5), (None, torch.arange(5)))
    assert meter.compute()["top1"] == 1
    assert math.isnan(meter.compute()["top5"])


def test_top_k_refuses_other_shapes_and_labels() -> None:
    with pytest.raises(ValueError, match=r"expected logits \(b, classes\) and labels \(b,\), got \(2, 3\) and \(3,\)"):
        TopK().update(torch.zeros(2, 3), (None, torch.zeros(3, dtype=torch.int64)))
    with pytest.raises(ValueError, match=r"labels 0 … 3 are not in 0 … 2"):
        TopK().update(torch.zeros(2, 3), (None, torch.tensor([0, 3])))


def test_processes_merge_to_what_one_would_have_counted() -> None:
    """As accelerate's gather_object hands meters over: pickled."""
    truth, predictions, targets = problem(1)
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(12, 6, generator=generator), torch.randint(0, 6, (12,), generator=generator)
    maps, masks = torch.randn(12, 3, 4, 4, generator=generator), torch.randint(0, 3, (12, 4, 4), generator=generator)
    for make, found, batch in (
        (lambda: BoxAP(truth), predictions, targets), (TopK, logits, labels), (lambda: MeanIoU(3), maps, masks),
    ):  # fmt: skip
        whole, parts = make(), [make() for _ in range(3)]
        whole.update(found, (None, batch))
        for number, part in enumerate(parts):
            part.update(found[4 * number : 4 * number + 4], (None, batch[4 * number : 4 * number + 4]))
        first, *others = parts
        first.merge([pickle.loads(pickle.dumps(other)) for other in others])
        assert first.compute() == pytest.approx(whole.compute(), nan_ok=True)


def test_a_pickled_box_ap_leaves_its_ground_truth_behind(scene_sets: Path) -> None:
    truth = json.loads((scene_sets / "coco/annotations/instances_val2017.json").read_text())
    sent = pickle.dumps(BoxAP(truth))
    assert len(sent) < 300
    with pytest.raises(ValueError, match="merge it into one with it"):
        pickle.loads(sent).compute()


def test_every_figure_has_a_unit() -> None:
    figures = {*TopK().compute(), *MeanIoU(2).compute(), *BoxAP(problem(0)[0]).compute()}
    assert figures <= set(TASK_UNITS)
    assert {"loss", "miou", "top1"} <= set(TASK_UNITS)

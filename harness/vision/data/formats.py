"""Scenes written in the layouts of ImageNet, COCO and ADE20K, as loaders of those read them.

write_all(Path("data"), {"train": scenes, "val": others}, classes=CLASSES, categories=KINDS)
# data/classes, data/coco, data/ade20k
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from harness.vision.data.composing import Instance, Scene

PARTS = ("classes", "coco", "ade20k")
QUALITY = 95


def write_all(
    folder: Path, splits: Mapping[str, Iterable[Scene]], *, classes: Sequence[str], categories: Sequence[str]
) -> None:
    """Every split in the three layouts; scenes are taken one at a time. A scene without a twin has no class.

    Args:
        classes: of pixels, from 1 in `Scene.semantic`. categories: of objects, `Instance.kind` is one of them.
    """
    (folder / "ade20k").mkdir(parents=True)
    lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName", *(f"{i}\t0\t0\t0\t0\t{name}" for i, name in enumerate(classes, 1))]
    (folder / "ade20k" / f"objectInfo{len(classes)}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for split, scenes in splits.items():
        long = {"train": "training", "val": "validation"}[split]
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, scene in enumerate(scenes, start=1):
            name = f"{number:012d}.jpg"
            height, width = scene.semantic.shape
            images.append({"id": number, "file_name": name, "width": width, "height": height})
            for each in scene.instances:
                if each.annotated:
                    category = 1 + categories.index(each.kind)
                    described = {"id": len(annotations) + 1, "image_id": number, "category_id": category}
                    annotations.append({**described, **_annotation(each)})
            _save(scene.pixels, folder / "coco" / f"{split}2017" / name)
            stem = f"ADE_{split}_{number:08d}"
            _save(scene.pixels, folder / "ade20k" / "images" / long / f"{stem}.jpg")
            _save(scene.semantic, folder / "ade20k" / "annotations" / long / f"{stem}.png")
            if scene.twin is not None:
                _save(scene.pixels, folder / "classes" / split / scene.twin / f"{number:08d}.jpg")
        content = {
            "info": {"description": f"Generated scenes, {split}"}, "licenses": [], "images": images,
            "annotations": annotations, "categories": [{"id": i, "name": kind} for i, kind in enumerate(categories, 1)],
        }  # fmt: skip
        path = folder / "coco" / "annotations" / f"instances_{split}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")


def _annotation(each: Instance) -> dict[str, Any]:
    """COCO's entry: a polygon where the outline shows whole, counts for a crowd, as COCO has them, else encoded RLE."""
    encoded: Any = rle.encode(np.asfortranarray(each.mask.astype(np.uint8)))
    segmentation: Any = {"size": list(each.mask.shape), "counts": encoded["counts"].decode("ascii")}
    if each.crowd:
        segmentation["counts"] = _counts(each.mask)
    elif each.polygon is not None:
        segmentation = [[round(value, 2) for point in each.polygon for value in point]]
    return {
        "bbox": [float(value) for value in rle.toBbox(encoded)], "area": int(each.mask.sum()),
        "segmentation": segmentation, "iscrowd": int(each.crowd),
    }  # fmt: skip


def _counts(mask: np.ndarray) -> list[int]:
    """Lengths of runs down the columns, alternately of 0 and of 1, beginning with 0."""
    flat = mask.flatten(order="F").astype(np.int8)
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], ends, [len(flat)]])).tolist()
    return [0, *runs] if flat[0] else runs


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if path.suffix == ".jpg":
        picture.save(path, quality=QUALITY, subsampling=0)  # colours of small objects survive
    else:
        picture.save(path)

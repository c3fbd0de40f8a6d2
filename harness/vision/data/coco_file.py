"""COCO's annotation file, read and checked entry by entry, so that training never meets a damaged one.

truth = read(Path("annotations/instances_val2017.json"), layout="…")
truth["images"], truth["annotations"], truth["categories"]       # as pycocotools takes them
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from harness.vision.data.reading import BadData, read_json

PARTS = ("images", "annotations", "categories")

Id = int | str


def in_order(identity: Id) -> tuple[bool, int, str]:
    """The order of ids: numbers by size, then texts."""
    return (True, 0, identity) if isinstance(identity, str) else (False, identity, "")


def read(path: Path, *, layout: str) -> dict[str, Any]:
    """The file's images, annotations and categories; `iscrowd` is 0 and `area` that of the box where they are absent.

    Raises BadData naming the file and the entry: no JSON, a part missing, no image, annotation or category at all, an
    id that is missing, neither a whole number nor a text, or used twice, a size, box or area that is no number or
    impossible, an image or category that is not listed. An image may have no annotation.
    """
    data = read_json(path, layout=layout)
    for part in PARTS:
        if not isinstance(data, Mapping) or not isinstance(data.get(part), list):
            raise BadData(f"{path}: expected an object with the lists {', '.join(PARTS)}; {part} is missing")
        if not data[part]:
            raise BadData(f"{path}: the list {part} is empty")
    images = _indexed(path, data["images"], "image", _image_fault)
    categories = _indexed(path, data["categories"], "category", _category_fault)
    annotations = [
        {"iscrowd": 0, **each} if isinstance(each, Mapping) else each for each in data["annotations"]
    ]  # fmt: skip
    _indexed(path, annotations, "annotation", lambda each: _annotation_fault(each, images, categories))
    for each in annotations:
        each.setdefault("area", each["bbox"][2] * each["bbox"][3])
    return {"images": data["images"], "annotations": annotations, "categories": data["categories"]}


def _indexed(path: Path, entries: list[Any], what: str, fault: Callable[[Mapping[str, Any]], str]) -> dict[Id, Any]:
    found: dict[Id, Any] = {}
    for position, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or not _identity(entry.get("id")):
            raise BadData(f"{path}: {what} at position {position} is no object with a whole number or a text as id")
        if entry["id"] in found:
            raise BadData(f"{path}: the id {entry['id']} is that of two {what.replace('y', 'ie')}s")
        if wrong := fault(entry):
            raise BadData(f"{path}: {what} {entry['id']}: {wrong}")
        found[entry["id"]] = entry
    return found


def _image_fault(entry: Mapping[str, Any]) -> str:
    for name in ("width", "height"):
        if not _whole(entry.get(name)) or entry[name] < 1:
            return f"{name} is {entry.get(name)!r}, not a positive whole number"
    name = entry.get("file_name")
    return "" if isinstance(name, str) and name else f"file_name is {name!r}"


def _category_fault(entry: Mapping[str, Any]) -> str:
    name = entry.get("name")
    return "" if isinstance(name, str) and name else f"name is {name!r}"


def _annotation_fault(
    entry: Mapping[str, Any], images: Mapping[Id, Mapping[str, Any]], categories: Collection[Id]
) -> str:
    named: Any = entry.get("image_id")
    image = images.get(named) if _identity(named) else None
    if image is None:
        return f"image_id {named!r} is not listed under images"
    if not _identity(entry.get("category_id")) or entry["category_id"] not in categories:
        valid = ", ".join(map(str, sorted(categories, key=in_order)))
        return f"category_id {entry.get('category_id')!r} is out of range; valid: {valid}"
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_finite, box)):
        return f"bbox is {box!r}, not four numbers [x, y, width, height]"
    if min(box[2:]) < 0:
        return f"bbox {box} has a negative extent"
    x, y, width, height = box
    apart = x >= image["width"] or y >= image["height"] or x + width <= 0 or y + height <= 0
    if min(width, height) > 0 and apart:  # what merely crosses the border is clipped to it
        return f"bbox {box} lies outside its image of {image['width']}×{image['height']}"
    if not _finite(entry.get("area", 0.0)) or entry.get("area", 0.0) < 0:
        return f"area is {entry['area']!r}"
    return "" if entry["iscrowd"] in (0, 1) else f"iscrowd is {entry['iscrowd']!r}, not 0 or 1"


def _identity(value: object) -> bool:
    return _whole(value) or (isinstance(value, str) and bool(value))


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)

"""COCO's annotation file, read and checked entry by entry, so that training never meets a damaged one.

truth = read(Path("annotations/instances_val2017.json"), layout="…")
truth["images"], truth["annotations"], truth["categories"]       # as pycocotools takes them
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from harness.errors import brief
from harness.vision.data.reading import BadData, read_json

LARGEST_SIDE = 1 << 20
LARGEST = 1e15  # of a coordinate or an area: beyond it a float32 has no figure for both ends of a box
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
            raise BadData(f"{path}: the id {brief(entry['id'])} is that of two {what.replace('y', 'ie')}s")
        if wrong := fault(entry):
            raise BadData(f"{path}: {what} {brief(entry['id'])}: {wrong}")
        found[entry["id"]] = entry
    return found


def _image_fault(entry: Mapping[str, Any]) -> str:
    for name in ("width", "height"):
        if not _whole(entry.get(name)) or not 1 <= entry[name] <= LARGEST_SIDE:
            return f"{name} is {brief(entry.get(name))}, not a whole number from 1 to {LARGEST_SIDE}"
    name = entry.get("file_name")
    if not isinstance(name, str) or not name or not name.isprintable():
        return f"file_name is {brief(repr(name))}"
    if name.startswith("/") or ".." in name.split("/"):
        return f"file_name is {brief(repr(name))}, which leaves the folder of the images"
    return "" if max(len(part.encode()) for part in name.split("/")) < 256 else f"file_name is {brief(repr(name))}"


def _category_fault(entry: Mapping[str, Any]) -> str:
    name = entry.get("name")
    return "" if isinstance(name, str) and name else f"name is {brief(repr(name))}"


def _annotation_fault(
    entry: Mapping[str, Any], images: Mapping[Id, Mapping[str, Any]], categories: Collection[Id]
) -> str:
    of: Any = entry.get("image_id")
    kind: Any = entry.get("category_id")
    image = images.get(of) if _identity(of) else None
    if image is None:
        return f"image_id {brief(repr(of))} is not listed under images"
    if not _identity(kind) or kind not in categories:
        valid = brief(", ".join(map(str, sorted(categories, key=in_order))), 200)
        return f"category_id {brief(repr(kind))} is out of range; valid: {valid}"
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_finite, box)):
        return f"bbox is {brief(box)}, not four numbers [x, y, width, height]"
    if min(box[2:]) < 0:
        return f"bbox {box} has a negative extent"
    x, y, width, height = box
    apart = x >= image["width"] or y >= image["height"] or x + width <= 0 or y + height <= 0
    if min(width, height) > 0 and apart:  # what merely crosses the border is clipped to it
        return f"bbox {box} lies outside its image of {image['width']}×{image['height']}"
    if not _finite(entry.get("area", 0.0)) or entry.get("area", 0.0) < 0:
        return f"area is {brief(entry['area'])}"
    return "" if entry["iscrowd"] in (0, 1) else f"iscrowd is {brief(entry['iscrowd'])}, not 0 or 1"


def segmentation_fault(segmentation: Any, height: int, width: int) -> str:
    """What of a segmentation would have pycocotools write beyond its memory, or take all there is; else nothing.

    Its outline takes a point a pixel, and a mask takes what its `size` says, whatever the picture's.
    """
    reach = 4 * max(height, width)
    if isinstance(segmentation, list):
        for part in segmentation:
            if not isinstance(part, list) or not all(_finite(at) and abs(at) <= reach for at in part):
                return f"a polygon is {brief(part)}, whose points are no numbers near the image"
        return ""
    if not isinstance(segmentation, Mapping):
        return ""
    counts, size = segmentation.get("counts"), segmentation.get("size")
    if size != [height, width]:
        return f"its mask has the size {brief(size)} in an image of {[height, width]}"
    if isinstance(counts, list) and not all(_whole(run) and 0 <= run <= height * width for run in counts):
        return f"its counts are {brief(counts)}"
    return ""


def _identity(value: object) -> bool:
    return _whole(value) or (isinstance(value, str) and bool(value))


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST

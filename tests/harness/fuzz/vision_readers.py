"""The readers of vision and of the kernels' tuning, which need PyTorch: see readers.

from vision_readers import VISION_READERS
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from readers import Reader
from safetensors.torch import save

from harness.vision import checkpoint
from harness.vision.data import ade20k, classification, coco, transforms
from harness.vision.data.reading import read_image, read_mask
from harness.vision.plan import Plan
from harness.vision.recipe import Recipe
from harness.vision.session import Session
from harness.vision.task import Mechanism

PLAN = Plan(
    task="classification", options={"size": 8, "patch": 4, "width": 16, "depth": 1, "heads": 2},
    mechanism=Mechanism(attention="anchor", anchors=2), recipe=Recipe(steps=6, batch=8, ema=0.9),
)  # fmt: skip


@cache
def session() -> Session:
    """The smallest training; restoring writes over its weights, which nobody looks at."""
    made = Session.open(PLAN, "cpu")
    items = [made.data["train"][at] for at in range(PLAN.recipe.batch)]
    losses = made.task.objective(made.options, made.data["train"])(made.model, made.task.collate(items))
    sum(losses.values(), torch.zeros(())).backward()
    made.optimizer.step()  # for the moments
    return made


@cache
def checkpoints() -> tuple[bytes, ...]:
    """A whole one, and the weights alone."""
    with tempfile.TemporaryDirectory() as folder:
        one = session()
        one.save(Path(folder, "last"))
        one.save_weights(Path(folder, "best"))
        return Path(folder, "last").read_bytes(), Path(folder, "best").read_bytes()


@cache
def headers() -> tuple[bytes, ...]:
    """What a checkpoint tells of itself, as JSON: most of its bytes are tensors, where a change is no news."""
    best = {"step": 0, "metric": "top1", "value": 0.5}
    facts = {"schema": 1, **session()._facts(), "steps": 6, "scaler": {}, "best": best}
    return (json.dumps(facts).encode(),)


def use_checkpoint(data: bytes, folder: Path) -> None:
    path = folder / "last.safetensors"
    path.write_bytes(data)
    _, facts = checkpoint.load(path)
    Plan.of(facts["plan"])
    session().restore(path)


def use_header(data: bytes, folder: Path) -> None:
    parts, _ = _good()
    tensors = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
    use_checkpoint(save(tensors, metadata={"harness": data.decode("utf-8", "replace")}), folder)


@cache
def _good() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "last").write_bytes(checkpoints()[0])
        return checkpoint.load(Path(folder, "last"))


@cache
def annotations() -> bytes:
    size = {"width": 8, "height": 6}
    images = [{"id": 7, "file_name": "a.png", **size}, {"id": 9, "file_name": "b/c.png", **size}]
    outline, counts = [[1, 1, 5, 1, 5, 4, 1, 4]], {"size": [6, 8], "counts": [4, 4, 40]}
    crowd = {"size": [6, 8], "counts": "04\\1"}
    found = [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 1, 4, 3], "area": 12.5, "segmentation": outline},
        {"id": 2, "image_id": 7, "category_id": 40, "bbox": [0.5, 0, 2, 2], "iscrowd": 0, "segmentation": counts},
        {"id": 3, "image_id": 9, "category_id": 3, "bbox": [0, 0, 8, 6], "iscrowd": 1, "segmentation": crowd},
    ]
    kinds = [{"id": 3, "name": "cat"}, {"id": 40, "name": "dog"}]
    return json.dumps({"images": images, "annotations": found, "categories": kinds}).encode()


def picture(kind: str, mode: str = "RGB") -> bytes:
    """A small picture as a file."""
    shape = (6, 8, 3) if mode == "RGB" else (6, 8)
    made = Image.fromarray((np.arange(np.prod(shape)) % 5).astype(np.uint8).reshape(shape))
    out = io.BytesIO()
    made.save(out, kind)
    return out.getvalue()


def use_annotations(data: bytes, folder: Path) -> None:
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_train2017.json").write_bytes(data)
    (folder / "train2017" / "b").mkdir(parents=True)
    for name in ("a.png", "b/c.png"):
        (folder / "train2017" / name).write_bytes(picture("PNG"))
    found = coco.load(folder, "train", transforms.detection(8, augment=False), masks=True)
    for at in range(min(len(found), 3)):
        found[at]


def use_picture(data: bytes, folder: Path) -> None:
    (folder / "p.png").write_bytes(data)
    read_image(folder / "p.png")


def use_scene(data: bytes, folder: Path) -> None:
    """An annotation of classes, or the list of classes."""
    for part, suffix, content in (("images", "jpg", picture("JPEG")), ("annotations", "png", picture("PNG", "L"))):
        (folder / part / "training").mkdir(parents=True)
        (folder / part / "training" / f"a.{suffix}").write_bytes(content)
    names = data[:4] not in (b"\x89PNG",)
    target = folder / "objectInfo150.txt" if names else folder / "annotations" / "training" / "a.png"
    target.write_bytes(data)
    read_mask(folder / "annotations" / "training" / "a.png")
    ade20k.load(folder, "train", transforms.segmentation(8, augment=False))[0]


def use_classes(data: bytes, folder: Path) -> None:
    (folder / "train" / "a").mkdir(parents=True)
    (folder / "train" / "a" / "1.png").write_bytes(data)
    classification.load(folder, "train", transforms.classification(8, augment=False))[0]


@cache
def tuned() -> bytes:
    from attentions.kernels.anchor.choices import Choice
    from attentions.kernels.anchor.tiles import Tile
    from attentions.kernels.anchor.tuning import VERSION, _to_json

    choice = Choice(
        schedule="split", tiles={"gather": Tile(64, 0, 4, 3, 7), "scatter": Tile(64, 0, 4, 2, 7)}, splits=4, chunks=4
    )
    return json.dumps({"version": VERSION, "choices": {"a|b": _to_json(choice)}}).encode()


def use_tuned(data: bytes, folder: Path) -> None:
    """Whatever the file holds, what comes of it is a choice that a kernel could be made of."""
    from attentions.kernels.anchor import tuning

    (folder / "anchor.json").write_bytes(data)
    os.environ["ATTENTIONS_CACHE"] = str(folder)
    tuning.remembered.cache_clear()
    try:
        for choice in tuning.remembered().values():
            assert choice.splits >= 1
            assert all(tile.warps in (1, 2, 4, 8, 16, 32) for tile in choice.tiles.values())
    finally:
        del os.environ["ATTENTIONS_CACHE"]
        tuning.remembered.cache_clear()


def _pictures() -> Sequence[bytes]:
    return [picture(kind) for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP")]


VISION_READERS: dict[str, Reader] = {
    "checkpoint": Reader(checkpoints, use_checkpoint, share=2),
    "header": Reader(headers, use_header, share=2),
    "annotations": Reader(lambda: [annotations()], use_annotations),
    "picture": Reader(_pictures, use_picture),
    "classes": Reader(_pictures, use_classes, share=1),
    "scene": Reader(lambda: [picture("PNG", "L"), b"Idx\tName\n1\tcat\n2\tdog\n3\tsky\n4\tsea\n"], use_scene, share=2),
    "tuned": Reader(lambda: [tuned()], use_tuned, share=2),
}

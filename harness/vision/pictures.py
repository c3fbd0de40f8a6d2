"""Sample predictions as figures: images with labels, with boxes, and beside their masks. Matplotlib, no window.

figure = labelled(images, ["cat", "dog"], ["cat", "cat"])     # images (3, h, w), normalised as the data sets do
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap, hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from harness.figures._style import FURTHER, INK
from harness.figures._wish import WIDTH
from harness.store.selection import printable

RIGHT, WRONG = "#009E73", "#D55E00"
COLUMNS = 6


def spread(data: Any, most: int) -> list[Any]:
    """At most so many items of a data set, evenly from its start to its end."""
    return [data[index * len(data) // most] for index in range(min(most, len(data)))]


def labelled(images: Sequence[Tensor], answers: Sequence[str], truths: Sequence[str]) -> Figure:
    """A grid of images titled by the label given; a wrong one is followed by the right one."""
    figure, cells = _grid(len(images), columns=COLUMNS)
    for cell, image, answer, truth in zip(cells, images, answers, truths, strict=True):
        cell.imshow(unnormalised(image), interpolation="nearest")
        right = answer == truth
        text = (
            printable(answer, limit=16) if right else f"{printable(answer, limit=12)}, is {printable(truth, limit=12)}"
        )
        cell.set_title(text, fontsize=8, color=RIGHT if right else WRONG, pad=3)
    figure.suptitle("Validation images and the label each was given", x=0.01, ha="left", fontsize=9.5)
    return figure


def boxed(
    images: Sequence[Tensor], found: Sequence[Sequence[tuple[Sequence[float], str]]],
    true: Sequence[Sequence[tuple[Sequence[float], str]]],
) -> Figure:  # fmt: skip
    """Images in 0…1 with the boxes found (solid, named) over the true ones (thin, dashed): (x1 y1 x2 y2, text) each."""
    figure, cells = _grid(len(images), columns=3)
    for cell, image, boxes, truths in zip(cells, images, found, true, strict=True):
        cell.imshow(np.clip(image.detach().cpu().permute(1, 2, 0).numpy(), 0, 1))
        for box, _ in truths:
            cell.add_patch(_outline(box, color="white", linestyle=(0, (2, 1.5)), linewidth=1.0))
        for box, text in boxes:
            cell.add_patch(_outline(box, color=WRONG, linewidth=1.4))
            cell.text(
                box[0], box[1], printable(text, limit=24), fontsize=6, color="white", va="bottom",
                bbox={"facecolor": WRONG, "edgecolor": "none", "pad": 0.6}, clip_on=True,
            )  # fmt: skip
    figure.suptitle("Validation images: boxes found (orange, class and score), true boxes (dashed)", x=0.01, ha="left",
                    fontsize=9.5)  # fmt: skip
    return figure


def masked(images: Sequence[Tensor], found: Sequence[Tensor], true: Sequence[Tensor], classes: Sequence[str]) -> Figure:
    """A row of images, one of the classes found and one of the true ones; pixels that do not count are white."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    grid = figure.subplots(3, len(images), squeeze=False)
    colours = ListedColormap(_colours(len(classes)))
    for column, (image, answer, truth) in enumerate(zip(images, found, true, strict=True)):
        counted = truth.cpu().numpy() < len(classes)
        grid[0, column].imshow(unnormalised(image))
        for line, mask in ((1, answer), (2, truth)):
            shown = np.ma.array(mask.cpu().numpy(), mask=~counted)
            grid[line, column].imshow(shown, cmap=colours, vmin=-0.5, vmax=len(classes) - 0.5, interpolation="nearest")
    for cells, name in zip(grid, ("image", "found", "true"), strict=True):
        cells[0].set_ylabel(name, color=INK)
        for cell in cells:
            _bare(cell)
    figure.suptitle("Validation images with the classes found and the true ones", x=0.01, ha="left", fontsize=9.5)
    return figure


def unnormalised(image: Tensor) -> np.ndarray:
    """(3, h, w) as the data sets normalise it → (h, w, 3) in 0…1."""
    pixels = image.detach().cpu().permute(1, 2, 0).numpy()
    return np.clip(pixels * np.array(IMAGENET_DEFAULT_STD) + np.array(IMAGENET_DEFAULT_MEAN), 0, 1)


def _grid(count: int, *, columns: int) -> tuple[Figure, list[Any]]:
    lines = -(-count // columns)
    figure = Figure(figsize=(WIDTH, 0.35 + lines * (WIDTH / columns + 0.12)), layout="constrained")
    cells = list(figure.subplots(lines, columns, squeeze=False).flat)
    for place, cell in enumerate(cells):
        _bare(cell)
        cell.set_visible(place < count)
    return figure, cells[:count]


def _colours(count: int) -> list[Any]:
    """As many distinct colours: the figures' own, or hues a golden ratio of the circle apart where those do not do."""
    if count <= len(FURTHER):
        return list(FURTHER[:count])
    return [hsv_to_rgb((0.618034 * place % 1, 0.7, 0.9 - 0.25 * (place % 3))) for place in range(count)]


def _bare(cell: Any) -> None:
    cell.set_xticks([])
    cell.set_yticks([])
    cell.grid(visible=False)


def _outline(box: Sequence[float], **look: Any) -> Rectangle:
    return Rectangle((box[0], box[1]), box[2] - box[0], box[3] - box[1], fill=False, **look)

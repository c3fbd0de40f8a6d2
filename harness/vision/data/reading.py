"""Files of a data set, read so that what is wrong with one is a sentence that names it.

from harness.vision.data.reading import read_image

image = read_image(Path("train/cat/1.jpg"))      # PIL, RGB; BadData: "train/cat/1.jpg: not a readable image (…)"
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.errors import UsageError, reason
from harness.store import opening
from harness.store.documents import Damaged, parse_json

MOST_JSON_BYTES = 1 << 32  # COCO's instances have half a gigabyte
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class BadData(UsageError):
    """A data set is missing, laid out otherwise or damaged; the message names the file. Exit code 2."""

    def __init__(self, message: str) -> None:
        # A DataLoader's worker hands its exception over as the text of a traceback: only the message is an answer.
        super().__init__(message.rpartition(f"{__name__}.BadData: ")[2].strip())


def read_image(path: Path) -> Image.Image:
    """The whole picture as RGB. Raises BadData when it is missing, truncated or no image."""
    return _decoded(path, "RGB", "image")


def read_mask(path: Path) -> np.ndarray:
    """An annotation's class of each pixel, (h, w) uint8. Raises BadData for what is no picture of one 8-bit channel."""
    return np.asarray(_decoded(path, None, "annotation"))


def read_json(path: Path, *, layout: str) -> Any:
    """The parsed file. Raises BadData: missing (then it says the layout), empty, no JSON."""
    try:
        data = opening.read(path, most=MOST_JSON_BYTES, links=True)
    except FileNotFoundError:
        raise BadData(f"{path} is missing; expected {layout}") from None
    except OSError as error:
        raise BadData(f"{path}: cannot be read ({reason(error)})") from None
    if not data.strip():
        raise BadData(f"{path}: the file is empty")
    try:
        return parse_json(data, most=MOST_JSON_BYTES, finite=False)
    except Damaged as error:
        raise BadData(f"{path}: not JSON ({error})") from None


def require_folder(path: Path, *, layout: str) -> Path:
    """`path`, if it is a folder. Raises BadData saying the layout that was expected."""
    if not path.is_dir():
        raise BadData(f"{path} is {'no folder' if path.exists() else 'missing'}; expected {layout}")
    return path


def images_in(folder: Path, *, layout: str) -> list[Path]:
    """The image files directly in a folder, in order of name. Raises BadData when there are none."""
    found = sorted(
        path for path in require_folder(folder, layout=layout).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES
    )
    if not found:
        raise BadData(f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)}); expected {layout}")
    return found


def some(names: Sequence[str], *, most: int = 3) -> str:
    """The first few names, and how many there are when that is not all."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _decoded(path: Path, mode: str | None, what: str) -> Image.Image:
    try:
        os.close(opening.opened(path, links=True))  # a pipe would be waited for
        with Image.open(path) as picture:
            if mode is None and picture.mode not in ("L", "P"):
                raise BadData(f"{path}: an annotation has one channel of 8 bits, this is {picture.mode}")
            return picture.convert(mode) if mode else picture.copy()  # both decode all of it
    except BadData:
        raise
    except FileNotFoundError:
        raise BadData(f"{path} is missing") from None
    except (
        Exception
    ) as error:  # each format's decoder raises its own on damaged files: OSError, zlib.error, struct.error …
        why = reason(error) if isinstance(error, OSError) else error
        raise BadData(f"{path}: not a readable {what} ({why})") from None

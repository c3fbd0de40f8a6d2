"""Files of a data set, read so that what is wrong with one is a sentence that names it.

from harness.vision.data.reading import read_image

image = read_image(Path("train/cat/1.jpg"))      # PIL, RGB; BadData: "train/cat/1.jpg: not a readable image (…)"
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.errors import UsageError, reason
from harness.store import opening
from harness.store.documents import Damaged, parse_json

MOST_JSON_BYTES = 1 << 32  # COCO's instances have half a gigabyte
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir")  # what systems leave beside pictures, without hiding it

ORIENTATION = 0x0112  # the tag of EXIF; 1 is upright
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
BITS_PER_SAMPLE = 0x0102  # the tag of TIFF


class BadData(UsageError):
    """A data set is missing, laid out otherwise or damaged; the message names the file. Exit code 2."""

    def __init__(self, message: str) -> None:
        # A DataLoader's worker hands its exception over as the text of a traceback: only the message is an answer.
        super().__init__(message.rpartition(f"{__name__}.BadData: ")[2].strip())


def read_image(path: Path) -> Image.Image:
    """The whole picture as RGB of 8 bits, upright as its EXIF orientation says, grey of 16 bits scaled to 8.

    Raises BadData when it is missing, truncated, no image, or has pixels whose range is not known (32 bits, floats).
    """
    return _decoded(path, _as_rgb, "image")


def read_mask(path: Path) -> np.ndarray:
    """An annotation's class of each pixel, (h, w) uint8, upright as `read_image` makes pictures.

    Raises BadData for what is no picture of one 8-bit channel.
    """
    return np.asarray(_decoded(path, _as_classes, "annotation"))


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
    """The image files directly in a folder, in order of name, without hidden ones. Raises BadData for none."""
    found = sorted(path for path in require_folder(folder, layout=layout).iterdir() if is_image(path, folder))
    if not found:
        raise BadData(f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)}); expected {layout}")
    return found


def is_image(path: Path, folder: Path) -> bool:
    """Whether a path below `folder` is named as an image and neither it nor a folder between is hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not any(map(is_hidden, path.relative_to(folder).parts))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is the system's and no data: `._0.jpg` of macOS, `.ipynb_checkpoints`, `__MACOSX`."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def some(names: Sequence[str], *, most: int = 3) -> str:
    """The first few names, and how many there are when that is not all."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _decoded(path: Path, convert: Callable[[Path, Image.Image], Image.Image], what: str) -> Image.Image:
    try:
        os.close(opening.opened(path, links=True))  # a pipe would be waited for
        with Image.open(path) as picture:
            turn = UPRIGHT.get(_orientation(picture))
            whole = convert(path, picture)  # this decodes all of it
            return whole if turn is None else whole.transpose(turn)
    except BadData:
        raise
    except FileNotFoundError:
        raise BadData(f"{path} is missing") from None
    except (
        Exception
    ) as error:  # each format's decoder raises its own on damaged files: OSError, zlib.error, struct.error …
        why = reason(error) if isinstance(error, OSError) else error
        raise BadData(f"{path}: not a readable {what} ({why})") from None


def _as_rgb(path: Path, picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG"):  # PNG has no 32 bits
        bits = getattr(picture, "tag_v2", {}).get(BITS_PER_SAMPLE, 16)
        most = (1 << int(bits[0] if isinstance(bits, tuple) else bits)) - 1
        grey = np.asarray(picture).astype(np.float64) * (255 / most)
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        kind = "floating-point" if picture.mode == "F" else "32-bit"
        raise BadData(
            f"{path}: its pixels are {kind} numbers, and what is white is not told; save it with 8 or 16 bits"
        )
    return picture.convert("RGB")


def _as_classes(path: Path, picture: Image.Image) -> Image.Image:
    if picture.mode not in ("L", "P"):
        raise BadData(f"{path}: an annotation has one channel of 8 bits, this is {picture.mode}")
    return picture.copy()


def _orientation(picture: Image.Image) -> int:
    """As the camera was held: 1 … 8; 1 where the file does not say, or says it in a damaged way."""
    try:
        return int(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # what else a damaged EXIF part raises: the pixels may be whole
        return 1

"""Writes generated scenes to a folder as data sets for classification, detection and segmentation.

    python -m harness.vision.data.scenes data --images 200 --size 64 --seed 0
    python -m harness.vision.data.scenes data --theme legend

    data/classes     class folders as ImageNet has them: the colour of the marked object's twin
    data/coco        COCO: boxes and masks of eight kinds of shapes, crowds, images without any object
    data/ade20k      ADE20K: three grounds and the shapes, 0 where a pixel is of no class

The same options write the same bytes (with the same Pillow). What a scene is: harness.vision.data.composing for the
theme `shapes`, harness.vision.data.legend for the theme `legend`, where categories and classes of pixels are colours.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.errors import FAILURE, Failure, UsageError, unknown
from harness.vision.data import composing, legend
from harness.vision.data.composing import Scene
from harness.vision.data.formats import PARTS, write_all
from harness.vision.data.identity import MARKER, WRITER, made_here
from harness.vision.data.shapes import COLOURS, KINDS

SPLITS = ("train", "val")
EMPTY_EVERY = 20  # one scene in so many has no objects
LARGEST = 2048


@dataclass(frozen=True)
class Theme:
    """What scenes show: how one is composed, the classes of pixels, the categories of objects, the least size."""

    compose: Callable[..., Scene]
    classes: tuple[str, ...]
    categories: tuple[str, ...]
    least: int


THEMES = {
    "shapes": Theme(composing.compose, composing.CLASSES, KINDS, 32),
    "legend": Theme(legend.compose, tuple(COLOURS), tuple(COLOURS), legend.LEAST_SIZE),
}


def write(
    folder: Path, *, images: int = 200, validation: int | None = None, size: int = 64, seed: int = 0,
    theme: str = "shapes",
) -> None:  # fmt: skip
    """Write `images` scenes of size × size pixels for training and `validation` others (a quarter as many).

    A folder that was written here is replaced; what else lies in it stays. The sets appear when they are complete.

    Raises: UsageError for a theme that does not exist, a number out of range and a folder that holds something else;
    Failure when it cannot be written.
    """
    if theme not in THEMES:
        raise UsageError(unknown("theme", theme, THEMES))
    validation = max(1, images // 4) if validation is None else validation
    for name, value, least, most in (
        ("images", images, 1, 10**6), ("validation", validation, 1, 10**6),
        ("size", size, THEMES[theme].least, LARGEST), ("seed", seed, 0, 2**63 - 1),
    ):  # fmt: skip
        if not least <= value <= most:
            raise UsageError(f"--{name} {value}: must be {least} … {most}")
    _check(folder)
    counts = dict(zip(SPLITS, (images, validation), strict=True))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as building:
            scenes = {split: generate(split, n, size=size, seed=seed, theme=theme) for split, n in counts.items()}
            write_all(
                Path(building), scenes, classes=THEMES[theme].classes, categories=THEMES[theme].categories
            )  # fmt: skip
            made = {
                "written_by": WRITER, "theme": theme, "images": images, "validation": validation, "size": size,
                "seed": seed,
            }  # fmt: skip
            (Path(building) / MARKER).write_text(json.dumps(made) + "\n", encoding="utf-8")
            folder.mkdir(exist_ok=True)
            for part in (MARKER, *PARTS):  # the marker first: an interrupted exchange can be begun again
                _exchange(Path(building) / part, folder / part)
    except OSError as error:
        raise Failure(f"cannot write {folder}: {error}") from None


def generate(split: str, count: int, *, size: int, seed: int, theme: str = "shapes") -> Iterator[Scene]:
    """The scenes of a split: a larger set begins with the smaller one. Every class once in as many scenes."""
    part, names = SPLITS.index(split), list(COLOURS)
    for number in range(count):
        block, place = divmod(number, len(names))
        order = np.random.default_rng([seed, part, block, 1]).permutation(len(names))
        twin = None if number % EMPTY_EVERY == EMPTY_EVERY - 1 else names[int(order[place])]
        yield THEMES[theme].compose(np.random.default_rng([seed, part, number]), size=size, twin=twin)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {WRITER}", description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path, help="is made, or replaced where it was written by this command")
    parser.add_argument("--theme", default="shapes", help=f"{', '.join(THEMES)} (default %(default)s)")
    parser.add_argument("--images", type=int, default=200, help="scenes for training (default %(default)s)")
    parser.add_argument("--validation", type=int, default=None, help="scenes for validation (default: a quarter)")
    parser.add_argument("--size", type=int, default=64, help="pixels a side (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other scenes (default %(default)s)")
    given = parser.parse_args(arguments)
    try:
        write(
            given.folder, images=given.images, validation=given.validation, size=given.size, seed=given.seed,
            theme=given.theme,
        )  # fmt: skip
    except (UsageError, Failure) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return getattr(error, "code", FAILURE)
    print(f"{given.folder}: {', '.join(PARTS)}")
    return 0


def _check(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if made_here(folder) is None:
        raise UsageError(f"{folder} is not empty and was not written by this command; name a new folder")


def _exchange(new: Path, old: Path) -> None:
    if old.is_dir() and not old.is_symlink():
        shutil.rmtree(old)
    new.replace(old)


if __name__ == "__main__":
    sys.exit(main())

"""A picture with a legend: signs in coloured frames say what colour each sign means, signs in grey frames ask for it.

    scene = compose(np.random.default_rng([0, 0, 7]), size=64, twin="red")
    scene.pixels, scene.instances, scene.semantic        # (64, 64, 3) uint8, asking signs, (64, 64) classes

Associative recall (harness.vision.recall) as dense vision: an asking sign's class is the colour of the frame that the
same sign has elsewhere in the picture. Only asking signs are of a class; all other pixels are of none. So a right
answer takes finding the same sign across the picture and fetching its colour, wherever the two stand. Colours are
drawn for each sign by itself, as there: the most frequent one of a picture is a better guess than chance, and a start
to learn from (with each colour equally often no model left chance within several hundred steps).

One asking sign has a white frame in place of a grey one: the picture's label for classification is its colour.
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np

from harness.vision.data.composing import Instance, Scene
from harness.vision.data.shapes import COLOURS

SIDE = 8  # places across and down
LEAST_SIZE = 5 * SIDE  # a frame of one pixel about three by three blocks
KEYS = 12  # signs of a legend
ASKED = 30  # signs that ask, of SIDE · SIDE − KEYS places
LIT, APART = 4, 4  # blocks of a sign, and blocks in which any two differ
GROUND, GREY, WHITE, INK = 60, 150, 255, 255


def compose(rng: np.random.Generator, *, size: int, twin: str | None) -> Scene:
    """A scene whose white-framed sign means the colour `twin`; with None, the ground alone.

    Places are size // 8 pixels a side; what that leaves at the right and below stays ground.
    """
    scene = Scene(
        pixels=np.full((size, size, 3), GROUND, np.float32), semantic=np.zeros((size, size), np.uint8), twin=twin
    )
    if twin is not None:
        _fill(scene, rng, twin)
    lit = scene.pixels * rng.uniform(0.8, 1.0) + rng.normal(0, 5, scene.pixels.shape)
    scene.pixels = lit.clip(0, 255).round().astype(np.uint8)
    return scene


@cache
def signs() -> np.ndarray:
    """(signs, 3, 3) of 0 and 1: LIT blocks each, any two APART, closed under mirroring, so that mirrored pictures have
    the same signs."""
    chosen: list[np.ndarray] = []
    for lit in itertools.combinations(range(9), LIT):
        sign = np.isin(np.arange(9), lit).astype(np.uint8).reshape(3, 3)
        pair = [sign] if np.array_equal(sign, sign[:, ::-1]) else [sign, sign[:, ::-1]]
        others = itertools.chain(itertools.product(pair, chosen), itertools.combinations(pair, 2))
        if all((one != other).sum() >= APART for one, other in others):
            chosen += pair
    return np.stack(chosen)


def _fill(scene: Scene, rng: np.random.Generator, twin: str) -> None:
    names = list(COLOURS)
    means = rng.integers(len(names), size=KEYS)  # of each key, its colour
    drawn = signs()[rng.permutation(len(signs()))[:KEYS]]
    asked = rng.integers(KEYS, size=ASKED).tolist()
    means[asked[0]] = names.index(twin)
    places = rng.permutation(SIDE * SIDE).tolist()
    for key in range(KEYS):
        _draw(scene, places.pop(), drawn[key], COLOURS[names[means[key]]])
    for number, key in enumerate(asked):
        mask = _draw(scene, places.pop(), drawn[key], WHITE if number == 0 else GREY)
        scene.semantic[mask] = 1 + means[key]
        scene.instances.append(_instance(names[means[key]], mask))


def _draw(scene: Scene, place: int, sign: np.ndarray, frame: tuple[int, int, int] | int) -> np.ndarray:
    """A framed sign at a place; the pixels that it covers."""
    size = len(scene.semantic)
    cell = size // SIDE
    edge = max(1, cell // 8)
    inner = cell - 2 * edge
    row, column = (each * cell for each in divmod(place, SIDE))
    block = np.arange(inner) * 3 // inner
    picture = np.empty((cell, cell, 3), np.float32)
    picture[:] = frame
    picture[edge : edge + inner, edge : edge + inner] = INK * sign[np.ix_(block, block)][..., None]
    mask = np.zeros((size, size), bool)
    mask[row : row + cell, column : column + cell] = True
    scene.pixels[mask] = picture.reshape(-1, 3)
    return mask


def _instance(kind: str, mask: np.ndarray) -> Instance:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    left, top, right, bottom = (float(each) for each in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return Instance(kind, int(mask.sum()), mask, [(left, top), (right, top), (right, bottom), (left, bottom)])

"""One scene: textured shapes that hide each other, on two grounds, among clutter, and one relation across the picture.

    scene = compose(np.random.default_rng([0, 0, 7]), size=128, twin="red")
    scene.pixels, scene.instances, scene.semantic        # (128, 128, 3) uint8, masks with kinds, (128, 128) classes

The relation: one object is marked by white brackets; exactly one other object has its shape, elsewhere, in a colour,
size, angle and texture of its own. The scene's label for classification is that twin's colour. The marked object's own
colour says nothing of it, and each of the other colours is that of one object of another shape: which colours are
there, and how much of each, tells little. The label takes finding the mark, its shape, and that shape elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from harness.vision.data.shapes import (
    COLOURS,
    GROUNDS,
    KINDS,
    TEXTURES,
    Polygon,
    coverage,
    ground,
    halves,
    outlines,
    stroke,
    texture,
)

OTHER = 0  # clutter and the mark: pixels of no class
CLASSES = (*GROUNDS, *KINDS)  # of pixels, from 1
SMALLEST, LARGEST = 0.05, 0.2  # radii, in sides of the picture
LEAST_OF_PAIR = 0.07  # so that its shape can be told
ROOM = 1.3  # half the side of the brackets, in radii
SHOWN = 0.75  # of the mark's and the twin's area, at least
ANNOTATED, PIXELS = 0.25, 9  # an object that shows less of itself, or fewer pixels, is not annotated
CROWDED = 0.12  # the share of scenes with a crowd


@dataclass
class Instance:
    """An object or a crowd: its visible pixels, and its outline where that is all of it."""

    kind: str
    full: int
    mask: np.ndarray
    polygon: Polygon | None = None
    crowd: bool = False

    @property
    def annotated(self) -> bool:
        """Whether enough of it shows."""
        return int(self.mask.sum()) >= max(PIXELS, ANNOTATED * self.full)


@dataclass
class Scene:
    """A picture (h, w, 3), its objects, the class of each pixel (0: none, then CLASSES), and the twin's colour."""

    pixels: np.ndarray
    semantic: np.ndarray
    twin: str | None
    instances: list[Instance] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Thing:
    kind: str
    colour: str
    centre: tuple[float, float]
    radius: float
    angle: float
    texture: str


def compose(rng: np.random.Generator, *, size: int, twin: str | None) -> Scene:
    """A scene with a marked object whose twin is of the colour `twin`; with None, grounds and clutter alone."""
    while True:
        scene, pair = _draw(rng, size=size, twin=twin)
        if all(each.mask.sum() >= max(1, SHOWN * each.full) for each in pair) and all(
            _stands_out(scene, each) for each in pair
        ):
            return scene


def _stands_out(scene: Scene, instance: Instance) -> bool:
    """Whether no other object shows half as much within the square about it, so that brackets point to it alone."""
    rows, columns = (np.flatnonzero(instance.mask.any(axis=axis)) for axis in (1, 0))
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    most = max((int(each.mask[window].sum()) for each in scene.instances if each is not instance), default=0)
    return 2 * most < int(instance.mask.sum())


def _draw(rng: np.random.Generator, *, size: int, twin: str | None) -> tuple[Scene, list[Instance]]:
    """A scene, and the two objects of it that the relation is between."""
    first, second = rng.permutation(len(GROUNDS))[:2].tolist()
    side = halves(size, rng)
    canvas = np.where(side[..., None], ground(GROUNDS[first], size, rng=rng), ground(GROUNDS[second], size, rng=rng))
    scene = Scene(pixels=canvas, semantic=np.where(side, first + 1, second + 1).astype(np.uint8), twin=twin)
    pair: list[Instance] = []
    _clutter(scene, rng, int(rng.integers(2, 6)))
    if twin is not None:
        marked, other = _pair(rng, size, twin)
        kinds = [kind for kind in KINDS if kind != marked.kind]
        if rng.random() < CROWDED:
            _crowd(scene, rng, kind=str(rng.choice(kinds)))
        rivals = rng.permutation([name for name in COLOURS if name != twin]).tolist()  # so that no colour stands out
        things = [_thing(rng, size, kind=str(rng.choice(kinds)), colour=name) for name in rivals]
        things += [marked, other]
        for number in rng.permutation(len(things)).tolist():  # so that depth tells nothing of the pair
            drawn = _put(scene, things[number], rng)
            if things[number] in (marked, other):
                pair.append(drawn)
        _mark(scene, marked)
    _clutter(scene, rng, int(rng.integers(0, 3)))
    scene.pixels = _lit(scene.pixels, rng)
    return scene, pair


def _thing(rng: np.random.Generator, size: int, *, kind: str, **given: object) -> _Thing:
    facts: dict[str, object] = {
        "colour": str(rng.choice(list(COLOURS))),
        "centre": tuple((size * rng.uniform(0.06, 0.94, 2)).tolist()),
        "radius": size * math.exp(rng.uniform(math.log(SMALLEST), math.log(LARGEST))),
        "angle": float(rng.uniform(0, 2 * math.pi)), "texture": str(rng.choice(TEXTURES)),
    }  # fmt: skip
    return _Thing(kind=kind, **{**facts, **given})  # type: ignore[arg-type]


def _pair(rng: np.random.Generator, size: int, twin: str) -> tuple[_Thing, _Thing]:
    """The object to be marked and its twin, whole in the picture and at least 0.4 of its side apart."""
    kind = str(rng.choice(KINDS))
    radii = np.exp(rng.uniform(math.log(LEAST_OF_PAIR), math.log(LARGEST), 2))
    while True:
        margin = (ROOM * radii + 0.02)[:, None]
        places = size * (margin + (1 - 2 * margin) * rng.random((2, 2)))
        if np.hypot(*(places[0] - places[1])) >= 0.4 * size:
            break
    marked, other = (
        _thing(rng, size, kind=kind, centre=tuple(place), radius=radius)
        for place, radius in zip(places.tolist(), (size * radii).tolist(), strict=True)
    )
    return marked, _Thing(**{**vars(other), "colour": twin})


def _put(scene: Scene, thing: _Thing, rng: np.random.Generator) -> Instance:
    """Draw a thing over what is there, with a soft shadow to its lower right, and take away what it hides."""
    size = len(scene.semantic)
    outline, hole = outlines(thing.kind, centre=thing.centre, radius=thing.radius, angle=thing.angle)
    alpha = coverage(size, outline, hole)
    shadow = np.roll(alpha, (max(1, size // 64),) * 2, axis=(0, 1))
    scene.pixels = scene.pixels * (1 - 0.35 * shadow[..., None])
    period = max(3.0, thing.radius * float(rng.uniform(0.5, 0.9)))
    paint = texture(thing.texture, size, colour=COLOURS[thing.colour], period=period, angle=thing.angle + 0.6)
    _over(scene, paint, alpha)
    mask = alpha > 0.5
    scene.semantic[mask] = 1 + CLASSES.index(thing.kind)
    inside = all(0 <= x <= size and 0 <= y <= size for x, y in outline)
    polygon = outline if inside and hole is None else None
    scene.instances.append(Instance(thing.kind, int(mask.sum()), mask, polygon))
    return scene.instances[-1]


def _crowd(scene: Scene, rng: np.random.Generator, *, kind: str) -> None:
    """Many small objects of a kind, close together: one annotation, iscrowd."""
    size = len(scene.semantic)
    before = len(scene.instances)
    middle = size * rng.uniform(0.2, 0.8, 2)
    for _ in range(int(rng.integers(7, 12))):
        centre = middle + size * rng.uniform(-0.14, 0.14, 2)
        radius = size * float(rng.uniform(0.03, 0.045))
        _put(scene, _thing(rng, size, kind=kind, centre=tuple(centre.tolist()), radius=radius), rng)
    mask = np.logical_or.reduce([each.mask for each in scene.instances[before:]])
    scene.instances[before:] = [Instance(kind, int(mask.sum()), mask, crowd=True)]


def _mark(scene: Scene, thing: _Thing) -> None:
    """White brackets at the corners of a square about a thing."""
    size, half = len(scene.semantic), ROOM * thing.radius + 1
    alpha = np.zeros((size, size), np.float32)
    for sx in (-1, 1):
        for sy in (-1, 1):
            x, y = thing.centre[0] + sx * half, thing.centre[1] + sy * half
            corner = [(x - sx * 0.5 * half, y), (x, y), (x, y - sy * 0.5 * half)]
            alpha = np.maximum(alpha, stroke(size, corner, max(1.25, size / 64)))
    _cover(scene, np.full((size, size, 3), 255, np.float32), alpha)


def _clutter(scene: Scene, rng: np.random.Generator, pieces: int) -> None:
    """Crooked lines in colours of the objects and in greys, which are of no class."""
    size = len(scene.semantic)
    greys = [(40, 40, 40), (200, 200, 200)]
    for _ in range(pieces):
        start, way = size * rng.random(2), float(rng.uniform(0, 2 * math.pi))
        points = [tuple(start.tolist())]
        for _ in range(3):
            way += float(rng.uniform(-1.1, 1.1))
            start = start + size * 0.11 * np.array([math.cos(way), math.sin(way)])
            points.append(tuple(start.tolist()))
        colour = [*COLOURS.values(), *greys][int(rng.integers(len(COLOURS) + len(greys)))]
        paint = np.broadcast_to(np.asarray(colour, np.float32) * 0.8, (size, size, 3))
        _cover(scene, paint, stroke(size, points, size * float(rng.uniform(0.012, 0.03))))


def _cover(scene: Scene, paint: np.ndarray, alpha: np.ndarray) -> None:
    _over(scene, paint, alpha)
    scene.semantic[alpha > 0.5] = OTHER


def _over(scene: Scene, paint: np.ndarray, alpha: np.ndarray) -> None:
    scene.pixels = scene.pixels * (1 - alpha[..., None]) + paint * alpha[..., None]
    hidden = alpha > 0.5
    for each in scene.instances:
        if (each.mask & hidden).any():
            each.mask, each.polygon = each.mask & ~hidden, None


def _lit(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light that falls off across the picture, and noise."""
    size = len(pixels)
    way = float(rng.uniform(0, 2 * math.pi))
    y, x = np.mgrid[:size, :size] / size - 0.5
    light = 0.95 + 0.35 * (x * math.cos(way) + y * math.sin(way))
    noisy = pixels * light[..., None] + rng.normal(0, 5, pixels.shape)
    return noisy.clip(0, 255).round().astype(np.uint8)

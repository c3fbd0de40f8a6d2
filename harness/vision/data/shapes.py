"""What scenes are made of: outlines of shapes, textures on them, and grounds under them. NumPy and Pillow only.

outline, hole = outlines("ring", centre=(32, 32), radius=10, angle=0.3)       # polygons in pixels
coverage(64, outline, hole)                                                   # (64, 64) float in 0…1, antialiased
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("disc", "ring", "square", "triangle", "star", "cross", "crescent", "bar")
GROUNDS = ("sand", "water", "grass")
COLOURS = {
    "red": (222, 40, 40), "yellow": (240, 210, 40), "green": (50, 190, 60), "cyan": (40, 200, 215),
    "blue": (50, 80, 225), "magenta": (215, 60, 200),
}  # fmt: skip
TEXTURES = ("plain", "stripes", "checks", "dots", "shaded")
FINER = 4  # of a pixel's side, for antialiasing

Polygon = list[tuple[float, float]]


def outlines(kind: str, *, centre: tuple[float, float], radius: float, angle: float) -> tuple[Polygon, Polygon | None]:
    """The outline of a shape of about π·radius²/2 or more, and of the hole in it if it has one; (x, y) in pixels."""
    outer, inner = _unit(kind)
    sine, cosine = math.sin(angle), math.cos(angle)

    def placed(points: Polygon) -> Polygon:
        return [
            (centre[0] + radius * (x * cosine - y * sine), centre[1] + radius * (x * sine + y * cosine))
            for x, y in points
        ]

    return placed(outer), placed(inner) if inner else None


def coverage(size: int, outline: Polygon, hole: Polygon | None = None) -> np.ndarray:
    """The share of each pixel that a polygon without its hole covers: (size, size) float32."""
    picture = Image.new("L", (size * FINER, size * FINER))
    draw = ImageDraw.Draw(picture)
    for points, value in ((outline, 255), (hole, 0)):
        if points:
            draw.polygon([(x * FINER, y * FINER) for x, y in points], fill=value)
    return np.asarray(picture.reduce(FINER), dtype=np.float32) / 255


def stroke(size: int, points: Polygon, width: float) -> np.ndarray:
    """The coverage of a line through points."""
    picture = Image.new("L", (size * FINER, size * FINER))
    ImageDraw.Draw(picture).line([(x * FINER, y * FINER) for x, y in points], fill=255, width=round(width * FINER))
    return np.asarray(picture.reduce(FINER), dtype=np.float32) / 255


def texture(name: str, size: int, *, colour: tuple[int, int, int], period: float, angle: float) -> np.ndarray:
    """A colour, darkened by a pattern: (size, size, 3) float32 in 0…255."""
    u, v = _rotated(size, angle)
    phase_u, phase_v = (np.floor(2 * axis / period) % 2 for axis in (u, v))
    patterns = {
        "plain": np.zeros((size, size)),
        "stripes": phase_u,
        "checks": (phase_u + phase_v) % 2,
        "dots": ((u / period % 1 - 0.5) ** 2 + (v / period % 1 - 0.5) ** 2 < 0.09).astype(float),
        "shaded": 0.5 + 0.5 * np.sin(math.pi * u / (4 * period)),
    }
    return (np.asarray(colour) * (1 - 0.5 * patterns[name][..., None])).astype(np.float32)


def ground(name: str, size: int, *, rng: np.random.Generator) -> np.ndarray:
    """The texture of a ground, in muted colours: (size, size, 3) float32 in 0…255."""
    u, v = _rotated(size, float(rng.uniform(0, math.pi)))
    if name == "sand":
        base, pattern = (168, 150, 124), 40 * (_smooth(size, 2, rng) - 0.5)
    elif name == "water":
        waves = np.sin(2 * math.pi * u / (size / 9) + 3 * _smooth(size, size // 4, rng))
        base, pattern = (96, 116, 136), 22 * waves
    else:
        blades = _smooth(size, 2, rng) * (0.5 + 0.5 * np.sin(2 * math.pi * (u + 0.4 * v) / (size / 24)))
        base, pattern = (92, 108, 78), 60 * (blades - 0.3)
    return (np.asarray(base, dtype=np.float32) + pattern[..., None]).astype(np.float32)


def halves(size: int, rng: np.random.Generator) -> np.ndarray:
    """A wavy line across the picture: True on one side, (size, size)."""
    u, v = _rotated(size, float(rng.uniform(0, 2 * math.pi)))
    wave = 0.06 * size * np.sin(2 * math.pi * v / (0.5 * size) + rng.uniform(0, 6.28))
    return u + wave > rng.uniform(-0.25, 0.25) * size


def _unit(kind: str) -> tuple[Polygon, Polygon | None]:
    """The shape about the origin, within the unit circle."""
    if kind in ("disc", "ring"):
        return _arc(1, 0, 2 * math.pi), _arc(0.5, 0, 2 * math.pi) if kind == "ring" else None
    if kind == "crescent":  # a disc less one that is moved to the right, between the points where the circles meet
        meeting = math.acos(0.55 / 2)
        bite = [(x + 0.55, y) for x, y in _arc(1, math.pi + meeting, math.pi - meeting)]
        return _arc(1, meeting, 2 * math.pi - meeting) + bite, None
    if kind == "star":
        turns = [(math.pi * i / 5, 1 if i % 2 == 0 else 0.42) for i in range(10)]
        return [(r * math.sin(a), -r * math.cos(a)) for a, r in turns], None
    if kind == "cross":
        a, b = 0.28, 0.95
        return [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a),
                (-a, -a)], None  # fmt: skip
    if kind == "triangle":
        return [(math.sin(a), -math.cos(a)) for a in (0, 2 * math.pi / 3, 4 * math.pi / 3)], None
    w, h = (0.82, 0.82) if kind == "square" else (0.98, 0.3)
    return [(-w, -h), (w, -h), (w, h), (-w, h)], None


def _arc(radius: float, start: float, stop: float) -> Polygon:
    return [(radius * math.cos(a), radius * math.sin(a)) for a in np.linspace(start, stop, 40)]


def _rotated(size: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def _smooth(size: int, grain: int, rng: np.random.Generator) -> np.ndarray:
    """Noise in 0…1 whose grains are about `grain` pixels."""
    cells = max(2, -(-size // max(1, grain)))
    picture = Image.fromarray((255 * rng.random((cells, cells))).astype(np.uint8))
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32) / 255

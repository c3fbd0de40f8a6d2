"""Poisson's equation on a cloud of irregular points in a square with holes: from its source to its solution. Generated.

    −Δu = f in the unit square without its holes,  u = 0 on the border and on the holes' rims

    solved = problem(1024, number=7)       # points (1024, 2), given (1024, 2): on a border or not, and f; solution
    cloud = scatter(1024, holes, generator)
    u = solve_on_cloud(cloud, source)      # (1024,) each

The source is a Gaussian random field; the holes, three discs, lie elsewhere in every problem, so that the points, their
number on rims and the function from f to u differ too. Linear finite elements on a Delaunay triangulation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.spatial import Delaunay

from harness.errors import UsageError
from harness.vision.data.pde import RandomField, Solved, solve

HOLES, RADII, GAP = 3, (0.08, 0.15), 0.1  # discs, their radii, and what is left between them and to the border
FEWEST = 144
RIM = 12  # points at least on the rim of a hole
CLEAR = 0.6  # of a spacing: inner points nearer to a rim than half of one would break its edges out of the mesh
JITTER = 0.15  # of a spacing
STRENGTH = 10.0  # of the source: a field of order one
TYPICAL = 0.01  # a solution's size; see harness.vision.data.darcy
FEATURES = 2  # given at a point
STEP = np.array([0.7548776662466927, 0.5698402909980532])  # 1/p and 1/p², p³ = p + 1: the plane's golden ratio


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """points (n, 2); triangles (t, 3) of their numbers; border (n,): on the square's border or on a rim."""

    points: np.ndarray
    triangles: np.ndarray
    border: np.ndarray


def check(points: int) -> None:
    """Raises UsageError for so few points that the holes' rims leave none inside."""
    if points < FEWEST:
        raise UsageError(f"points={points}: poisson takes at least {FEWEST}, of which many lie on border and rims")


def problem(points: int, number: int) -> Solved:
    """The `number`-th problem with so many points: the same holes and source at every size."""
    check(points)
    generator = np.random.default_rng((number, 1))
    field, holes = RandomField.draw(generator), draw_holes(generator)
    cloud = scatter(points, holes, generator)
    source = STRENGTH * field.at(cloud.points)
    given = np.stack([np.where(cloud.border, 1.0, -1.0), source], axis=1)
    solution = solve_on_cloud(cloud, source) / TYPICAL
    return Solved(points=cloud.points, given=given, solution=solution, triangles=cloud.triangles)


def draw_holes(generator: np.random.Generator) -> np.ndarray:
    """(HOLES, 3): centre and radius of discs at least GAP from each other and from the border."""
    holes = np.empty((0, 3))
    while len(holes) < HOLES:
        radius = generator.uniform(*RADII)
        x, y = generator.uniform(radius + GAP, 1 - radius - GAP, size=2)
        if np.all(np.hypot(holes[:, 0] - x, holes[:, 1] - y) > holes[:, 2] + radius + GAP):
            holes = np.vstack([holes, (x, y, radius)])
    return holes


def scatter(count: int, holes: np.ndarray, generator: np.random.Generator) -> Cloud:
    """A cloud of `count` points around holes (h, 3), and its triangles; rims are drawn as polygons.

    Border and rims are spaced by about 1/√count, all in random order within: an additive sequence with a random start,
    jittered. Triangles whose corners lie on one rim fill a hole, and are none of the mesh.
    """
    side = int(np.sqrt(count))
    along = np.arange(side) / side
    zero, one = np.zeros(side), np.ones(side)
    edges = [(along, zero), (one, along), (1 - along, one), (zero, 1 - along)]
    border = [np.stack(edge, axis=1) for edge in edges]
    rims, belongs = [], [np.full(4 * side, -1)]
    for number, (x, y, radius) in enumerate(holes):
        around = max(RIM, round(2 * np.pi * radius * side))
        angle = 2 * np.pi * (np.arange(around) + generator.uniform()) / around
        rims.append(np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1))
        belongs.append(np.full(around, number))
    outline = np.concatenate([*border, *rims])
    points = np.concatenate([outline, _inside(count - len(outline), side, holes, generator)])
    rim = np.concatenate([*belongs, np.full(count - len(outline), -1)])
    triangles = Delaunay(points).simplices
    corners = rim[triangles]
    filling = (corners[:, 0] >= 0) & (corners == corners[:, :1]).all(axis=1)
    flat = np.abs(_areas(points[triangles])) < 1e-12  # three points of one straight border
    order = generator.permutation(count)
    return Cloud(
        points=points[order], triangles=np.argsort(order)[triangles[~filling & ~flat]],
        border=np.arange(count)[order] < len(outline),
    )  # fmt: skip


def _inside(count: int, side: int, holes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """So many points that keep clear of border and rims."""
    candidates = (generator.uniform(size=2) + np.arange(1, 6 * count + 1)[:, None] * STEP) % 1
    candidates += generator.uniform(-JITTER, JITTER, size=candidates.shape) / side
    clear = ((candidates > CLEAR / side) & (candidates < 1 - CLEAR / side)).all(axis=1)
    for x, y, radius in holes:
        clear &= np.hypot(candidates[:, 0] - x, candidates[:, 1] - y) > radius + CLEAR / side
    assert clear.sum() >= count, (count, side, holes)
    return candidates[clear][:count]


def solve_on_cloud(cloud: Cloud, source: np.ndarray) -> np.ndarray:
    """u (n,) of −Δu = f with u = 0 on border and rims, f (n,) taken as linear on each triangle.

    Second order in the spacing of the points, in the mean square.
    """
    corners = cloud.points[cloud.triangles]  # (t, 3, 2)
    area = np.abs(_areas(corners))
    opposite = np.roll(corners, -1, axis=1) - np.roll(corners, -2, axis=1)  # of each corner, the edge it does not touch
    stiffness = np.einsum("tia,tja->tij", opposite, opposite) / (4 * area[:, None, None])
    mass = area[:, None, None] / 12 * (1 + np.eye(3))
    n, free = len(cloud.points), ~cloud.border
    rows, columns = np.repeat(cloud.triangles, 3, axis=1).ravel(), np.tile(cloud.triangles, 3).ravel()
    whole = coo_array((stiffness.ravel(), (rows, columns)), shape=(n, n)).tocsr()
    load = np.bincount(cloud.triangles.ravel(), np.einsum("tij,tj->ti", mass, source[cloud.triangles]).ravel(), n)
    solution = np.zeros(n)
    solution[free] = solve(whole[free][:, free].tocsc(), load[free])
    return solution


def _areas(corners: np.ndarray) -> np.ndarray:
    """(t, 3, 2) → (t,), signed."""
    one, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return (one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]) / 2

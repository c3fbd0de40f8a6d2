"""Solutions of differential equations as figures: what is known, the solution, what a network found, its error.

figure = drawn([solved], [found])        # harness.vision.data.pde.Solved, and found (n,) of each
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from harness.figures._style import short
from harness.figures._wish import WIDTH
from harness.vision.data.pde import Solved

COLUMNS = ("known", "solution", "found", "found − solution")


def drawn(solved: Sequence[Solved], found: Sequence[np.ndarray]) -> Figure:
    """A row a problem; solution and found share their colours, the error has its own around zero.

    Grids are drawn as pixels, clouds as triangles with the holes left out. Known is the last number given at a point.
    """
    figure = Figure(figsize=(WIDTH, 0.45 + 1.85 * len(solved)), layout="constrained")
    grid = figure.subplots(len(solved), len(COLUMNS), squeeze=False)
    for cells, problem, answer in zip(grid, solved, found, strict=True):
        true, error = problem.solution, answer - problem.solution
        low, high = float(true.min()), float(true.max())
        most = float(np.abs(error).max())
        known = _field(cells[0], problem, problem.given[:, -1], cmap="cividis")
        _field(cells[1], problem, true, cmap="viridis", vmin=low, vmax=high)
        shared = _field(cells[2], problem, answer, cmap="viridis", vmin=low, vmax=high)
        off = _field(cells[3], problem, error, cmap="RdBu_r", vmin=-most, vmax=most)
        for image, owners in ((known, cells[:1]), (shared, cells[1:3]), (off, cells[3:])):
            figure.colorbar(image, ax=list(owners), shrink=0.85, pad=0.01).ax.tick_params(labelsize=7)
        share = np.linalg.norm(error) / np.linalg.norm(true)
        cells[3].set_xlabel(f"relative L2 error {short(float(share))}", fontsize=8)
    for cell, name in zip(grid[0], COLUMNS, strict=True):
        cell.set_title(name)
    figure.suptitle("Held-out problems", x=0.01, ha="left", fontsize=9.5)
    return figure


def _field(cell: Any, problem: Solved, values: np.ndarray, **look: Any) -> Any:
    cell.set(xticks=[], yticks=[], aspect="equal")
    cell.grid(visible=False)
    if problem.triangles is None:
        side = round(len(values) ** 0.5)
        return cell.imshow(values.reshape(side, side).T, origin="lower", interpolation="nearest", **look)
    return cell.tripcolor(*problem.points.T, values, triangles=problem.triangles, shading="gouraud", **look)

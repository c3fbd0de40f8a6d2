"""What the generated partial differential equations share: a solved problem, random fields, the sparse solver.

    field = RandomField.draw(np.random.default_rng(0))
    field.at(points)                                    # (n,): the same function at any points of the unit square
    solve(matrix, right)                                # a symmetric sparse system, directly

The equations are harness.vision.data.darcy and .poisson, a file each, with `check(points)`, `problem(points, number)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csc_array
from scipy.sparse.linalg import splu

MODES = 32  # cosines a direction; the next one has 0.2 % of the first one's amplitude
ROUGHNESS, SHIFT = 2.0, 9.0  # the covariance is (−Δ + SHIFT)^−ROUGHNESS


@dataclass(frozen=True, kw_only=True)
class Solved:
    """A problem and its solution at n points of the unit square.

    points (n, 2); given (n, c), what is known at each point; solution (n,); triangles (t, 3), numbers of points, or
    None where the points are the cells of a square grid, row by row.
    """

    points: np.ndarray
    given: np.ndarray
    solution: np.ndarray
    triangles: np.ndarray | None = None


@dataclass(frozen=True)
class RandomField:
    """A Gaussian random function on the unit square, N(0, (−Δ + 9)⁻²) with zero flux at its border, without its mean.

    coefficients (MODES, MODES): of cos(kπx)·cos(lπy). Nothing depends on where it is evaluated: a finer grid shows the
    same function. Source: Li et al. 2020, arXiv 2010.08895, section 5.2, whose fields have as many cosines as the
    grid takes.
    """

    coefficients: np.ndarray

    @classmethod
    def draw(cls, generator: np.random.Generator) -> RandomField:
        """A new one."""
        k = np.arange(MODES)
        spectrum = (np.pi**2 * (k[:, None] ** 2 + k**2) + SHIFT) ** (-ROUGHNESS / 2)
        norms = np.where(k > 0, np.sqrt(2.0), 1.0)
        coefficients = generator.standard_normal((MODES, MODES)) * spectrum * np.outer(norms, norms)
        coefficients[0, 0] = 0.0
        return cls(coefficients)

    def at(self, points: np.ndarray) -> np.ndarray:
        """(n, 2) → (n,)."""
        cosines = np.cos(np.pi * points[..., None] * np.arange(MODES))
        return np.einsum("nk,nk->n", cosines[:, 0] @ self.coefficients, cosines[:, 1])


def solve(matrix: csc_array, right: np.ndarray) -> np.ndarray:
    """The solution of a symmetric positive definite system, by SuperLU without pivoting: it needs none."""
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return factors.solve(right)

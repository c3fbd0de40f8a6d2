"""Steady Darcy flow: from the permeability of random rock, known on a square grid, to the pressure. Generated.

    −∇·(a ∇u) = 1 on (0, 1)²,  u = 0 on its border

    solved = problem(1024, number=7)                # points (1024, 2), given (1024, 1): ±1 for the phase, solution
    pressure = solve_on_grid(permeability, source)  # (side, side) each

The rock has two phases, a = 12 where a Gaussian random field is positive and 3 elsewhere (Li et al. 2020, arXiv
2010.08895, section 5.2 and its appendix; they solve by finite differences on 421² points). Here: finite volumes, a cell
a point, with the harmonic mean of two cells between them, so that the flow over a jump of a is right.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.sparse import coo_array, diags_array

from harness.errors import UsageError
from harness.vision.data.pde import RandomField, Solved, solve

PHASES = (3.0, 12.0)
TYPICAL = 0.01  # a solution's size: divided by it, what a network learns is of order one; relative errors stay
FEATURES = 1  # given at a point


def check(points: int) -> None:
    """Raises UsageError for a number of points that is no square."""
    side = math.isqrt(points)
    if side * side != points:
        near = f"{side**2} and {(side + 1) ** 2}"
        raise UsageError(f"darcy lives on a square grid: points={points} is no square, {near} are")


def problem(points: int, number: int) -> Solved:
    """The `number`-th problem on a grid of so many cells: the same rock at every size."""
    check(points)
    side = math.isqrt(points)
    field = RandomField.draw(np.random.default_rng((number, 0)))
    centres = (np.arange(side) + 0.5) / side
    grid = np.stack(np.meshgrid(centres, centres, indexing="ij"), axis=-1).reshape(-1, 2)
    phase = field.at(grid) > 0
    permeability = np.where(phase, PHASES[1], PHASES[0]).reshape(side, side)
    pressure = solve_on_grid(permeability, np.ones((side, side)))
    given = np.where(phase, 1.0, -1.0)[:, None]
    return Solved(points=grid, given=given, solution=pressure.ravel() / TYPICAL)


def solve_on_grid(permeability: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The pressure u in each cell, (side, side), of −∇·(a ∇u) = f with u = 0 on the border.

    What flows from a cell to its neighbour is 2/(1/a + 1/a')·(u − u'), over the border 2·a·u: half a cell lies between.
    Second order in the width of a cell where a is smooth.
    """
    side = len(permeability)
    numbers = np.arange(side * side).reshape(side, side)
    one = np.concatenate([numbers[1:].ravel(), numbers[:, 1:].ravel()])
    other = np.concatenate([numbers[:-1].ravel(), numbers[:, :-1].ravel()])
    resistance = 1 / permeability.ravel()
    through = 2 / (resistance[one] + resistance[other])
    pairs = np.concatenate([one, other]), np.concatenate([other, one])
    neighbours = coo_array((np.tile(through, 2), pairs), shape=(side * side, side * side)).tocsc()
    leaving = neighbours.sum(axis=1) + over_border(permeability).ravel()
    return solve((diags_array(leaving) - neighbours).tocsc(), source.ravel() / side**2).reshape(side, side)


def over_border(permeability: np.ndarray) -> np.ndarray:
    """What leaves each cell over the border for a pressure of 1: 2·a for each of its sides that lies there."""
    leaving = np.zeros_like(permeability)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        leaving[edge] += 2 * permeability[edge]
    return leaving

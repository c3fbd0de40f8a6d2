"""The rules that were tried for telling a slowdown, on the same recorded processes; CHOSEN is the gate's.

    figures = RULES["cpu"].figures(process[key])           # logarithms, one a process or one a turn
    d = ratio(base_figures, head_figures)                  # log(head / base) of a pair of processes

A rule is a clock and what is made of a process' turns by it; one with several parts says regressed where any of them
does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.check.decide import Clock, Pairs, pair_logs
from harness.errors import Failure

Turns = Sequence[Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What one process measured of one specimen: the samples of each turn in ms, by each clock."""

    wall: Turns
    cpu: Turns

    def by(self, clock: Clock) -> Turns:
        """The turns by one clock. Raises Failure where the process has none by it."""
        turns = self.wall if clock == "wall" else self.cpu
        if not turns:
            raise Failure(f"the pool holds no {clock} times: it was recorded with several threads or on a GPU")
        return turns


@dataclass(frozen=True)
class Part:
    """A clock, and what is made of a process' turns: logarithms of figures."""

    clock: Clock
    figures: Callable[[Turns], np.ndarray]

    def of(self, timed: Timed) -> np.ndarray:
        """The figures of one process."""
        return self.figures(timed.by(self.clock))


def _quantile(share: float) -> Callable[[Turns], np.ndarray]:
    return lambda turns: np.log([np.quantile([value for turn in turns for value in turn], share)])


def _by_turn(turns: Turns) -> np.ndarray:
    return np.log([np.median(turn) for turn in turns])


MEDIAN, QUARTER = _quantile(0.5), _quantile(0.25)
RULES: Mapping[str, tuple[Part, ...]] = {
    "cpu or wall": (Part("cpu", MEDIAN), Part("wall", MEDIAN)),
    "cpu": (Part("cpu", MEDIAN),),
    "cpu, lower quartile": (Part("cpu", QUARTER),),
    "cpu, turn by turn": (Part("cpu", _by_turn),),
    "wall": (Part("wall", MEDIAN),),
    "wall, lower quartile": (Part("wall", QUARTER),),
    "wall, turn by turn": (Part("wall", _by_turn),),
}
CHOSEN, BEFORE = "cpu or wall", "wall"


def pairs(sides: Sequence[str], figures: Sequence[np.ndarray]) -> Pairs:
    """The pairs of processes in the order of decide.slots. Raises ValueError for figures that are no numbers."""
    if not all(math.isfinite(value) for vector in figures for value in vector):
        raise ValueError("a figure is no number")
    count = min(map(len, figures))  # a turn that one of them lost is nobody's
    return pair_logs(sides, np.array([vector[:count] for vector in figures]))

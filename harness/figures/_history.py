"""A case over time: its figure with its interval at each commit, levels between steps, and where they may lie.

figure = draw([Drawn(title="anchor n=4096", unit="ms", …)])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.figures._sheet import DOUBT, Page
from harness.figures._style import FAINT, INK, LOOKS
from harness.figures._wish import WIDTH
from harness.store.selection import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_INCHES = 2.3
MOST_LABELS, MOST_LETTERS = 16, 100


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One point: its commit, its figure with its interval, and whether its machine was not quiet."""

    commit: str
    value: float
    low: float | None
    high: float | None
    contended: bool


@dataclass(frozen=True, kw_only=True)
class Level:
    """The points from `start` to before `end` lie about one value, which is said in words."""

    start: int
    end: int
    value: float
    words: str


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A panel: what it is of, its points, its levels, and the places (first, last) between which each step lies."""

    attention: str
    title: str
    label: str
    marks: tuple[Mark, ...]
    levels: tuple[Level, ...]
    steps: tuple[tuple[int, int], ...]
    note: str


def draw(panels: Sequence[Drawn]) -> Page:
    """A panel each, below each other, points evenly apart in the order of time."""
    from harness.figures._wish import AS_USUAL, styled

    with styled(AS_USUAL):
        figure = Page(figsize=(WIDTH, PANEL_INCHES * len(panels) + 0.6), layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False)
        for axes, panel in zip(grid[:, 0], panels, strict=True):
            _panel(axes, panel)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return figure


def _panel(axes: Axes, panel: Drawn) -> None:
    color = LOOKS.get(panel.attention, (INK, "o"))[0]
    for at, mark in enumerate(panel.marks):
        face = "white" if mark.contended else color
        edge = DOUBT if mark.contended else color
        if mark.low is not None and mark.high is not None and math.isfinite(mark.low + mark.high):
            axes.vlines(at, mark.low, mark.high, color=edge, linewidth=2.5, alpha=0.35)
        axes.plot([at], [mark.value], marker="o", markersize=5, markerfacecolor=face, markeredgecolor=edge)
    for level in panel.levels:
        axes.hlines(level.value, level.start - 0.4, level.end - 0.6, color=INK, linewidth=1.1)
        axes.annotate(
            level.words, (level.start - 0.4, level.value), xytext=(0, 4), textcoords="offset points", fontsize=8
        )
    for first, last in panel.steps:
        axes.axvspan(first - 0.5, last - 0.5 if last > first else last - 0.45, color=DOUBT, alpha=0.15, linewidth=0)
    shown = range(0, len(panel.marks), -(-len(panel.marks) // MOST_LABELS))
    labels = [panel.marks[at].commit[:7] or "?" for at in shown]
    axes.set_xticks(list(shown), labels, rotation=45, ha="right", fontsize=7)
    axes.set_xlim(-0.6, len(panel.marks) - 0.4)
    axes.margins(y=0.25)
    axes.set_ylabel(panel.label)
    axes.set_title(printable(panel.title, limit=MOST_LETTERS), fontsize=8.5)
    axes.text(0.99, 0.03, panel.note, transform=axes.transAxes, fontsize=7.5, color=FAINT, ha="right")

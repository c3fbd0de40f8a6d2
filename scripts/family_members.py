"""What scripts/family_study.py compares: the problems with their recipes, and the members with their options.

mechanism = MEMBERS[2].on(PROBLEMS["darcy"])        # anchor init=sharp with m = 16
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vision_study import STUDIES

from harness.vision.task import Mechanism


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is learnt: the task with its options, m, the recipe; theme and part of the generated scenes it reads;
    columns of the grid that its tokens are, 0 for none; again: another of these with another m."""

    task: str
    anchors: int
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    theme: str = ""
    part: str = ""
    columns: int = 0
    again: bool = False


def _recall(anchors: int) -> Problem:
    return Problem(
        task="recall", anchors=anchors, options={"shapes": 96, "items": 56}, recipe={"steps": 500, "lr": 3e-3}
    )


def _operator(equation: str, points: int = 256, anchors: int = 16) -> Problem:
    return Problem(
        task="operator", anchors=anchors, options={"equation": equation, "points": points, "samples": 1000},
        recipe={"steps": 300, "batch": 4, "lr": 2e-3, "weight_decay": 0.01},
        columns=math.isqrt(points) if equation == "darcy" else 0,
    )  # fmt: skip


def _of_vision(name: str) -> Problem:
    study = STUDIES[name]
    return Problem(
        task=study.task, anchors=study.anchors, options=study.options, recipe=study.recipe,
        theme=study.theme if study.part else "", part=study.part, columns=8,
    )  # fmt: skip


PROBLEMS = {
    "recall-8": _recall(8), "darcy": _operator("darcy"), "poisson": _operator("poisson"),
    "recall-4": _recall(4), "recall-16": _recall(16), "digits": _of_vision("digits"),
    "legend": _of_vision("legend-segmentation"), "darcy-64": replace(_operator("darcy", anchors=64), again=True),
    "darcy-1024": _operator("darcy", points=1024, anchors=32),
    "darcy-1024-64": replace(_operator("darcy", points=1024, anchors=64), again=True),
    "darcy-1024-256": replace(_operator("darcy", points=1024, anchors=256), again=True),
}  # fmt: skip
USUAL = [name for name in PROBLEMS if name != "legend" and not name.startswith("darcy-")]


@dataclass(frozen=True)
class Member:
    """An attention with its options; a window reaches as many tokens to each side as the problem's m; grid: `local`
    spans the problem's."""

    attention: str
    options: Mapping[str, Any] = field(default_factory=dict)
    grid: bool = False

    def on(self, problem: Problem) -> Mechanism:
        """What is built for a problem."""
        own = {"reach": problem.anchors} if self.attention == "window" else {}
        own |= {"columns": problem.columns} if self.grid else {}
        return Mechanism(attention=self.attention, anchors=problem.anchors, options={**self.options, **own})


MEMBERS = (
    Member("none"),
    Member("full"),
    Member("anchor", {"init": "sharp"}),
    Member("anchor", {"init": "paper"}),
    Member("anchor", {"self": "excluded"}),
    Member("anchor", {"self": "learned"}),
    Member("transolver"),
    Member("flare"),
    Member("linformer"),
    Member("nystrom"),
    Member("agent"),
    Member("linear"),
    Member("performer"),
    Member("window"),
    Member("anchor", {"scatter": "separate"}),
    Member("anchor", {"tempered": "head"}),
    Member("anchor", {"tempered": "token"}),
    Member("anchor", {"bias": True}),
    Member("anchor", {"per_head": True}),
    Member("anchor", {"local": 3}),
    Member("anchor", {"gate": True}),
    Member("anchor", {"self": "excluded", "local": 3}),
    Member("anchor", {"self": "excluded", "tempered": "token"}),
    Member("anchor", {"self": "excluded", "bias": True}),
    Member("anchor", {"self": "excluded", "scatter": "separate"}),
    Member("anchor", {"init": "orthogonal", "logits": "cosine"}),
    Member("anchor", {"init": "orthogonal", "logits": "cosine", "self": "excluded"}),
    Member("anchor", {"importance": True}),
    Member("anchor", {"self": "excluded", "importance": True}),
    Member("anchor", {"init": "orthogonal", "logits": "cosine", "importance": True}),
    Member("anchor", {"init": "orthogonal", "logits": "cosine", "self": "excluded", "importance": True}),
    Member("anchor", {"self": "excluded", "local": 3}, grid=True),
    Member("transolver", {"mixing": False}),
    Member("flash"),
)

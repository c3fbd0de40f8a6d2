"""The vision study: what it draws."""

from __future__ import annotations

from pathlib import Path

import pandas
from scripting import load

from harness.figures import Run


def test_problems_of_one_seed_rank_nothing_and_are_not_drawn() -> None:
    frame = pandas.DataFrame({"scope": ["model a", "model a", "model b"], "seed": [0, 1, 0]})
    run = Run(folder=Path(), frame=frame, environment={}, whole=frame)
    assert set(load("vision_study").repeated(run).frame["scope"]) == {"model a"}

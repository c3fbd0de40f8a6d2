"""Where a sweep's time goes: what the script says of a run's environment.json."""

from __future__ import annotations

import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripting import load

from harness.cases.catalogue import describe
from harness.cases.space import Sweep, expand


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load("overhead")


def document(wall: float, *sessions: dict[str, float]) -> dict[str, Any]:
    measuring = sum(s for spent in sessions for name, s in spent.items() if name not in ("start", "set-up", "lost"))
    return {"wall_s": wall, "measuring_s": measuring, "sessions": [{"seconds": spent} for spent in sessions]}


def test_the_share_and_the_stages_add_up(script: ModuleType) -> None:
    found = document(100.0, {"latency": 50.0, "start": 4.0, "set-up": 1.0}, {"latency": 10.0, "numeric_error": 30.0})
    lines, well = script.report(found, predicted_s=None)
    assert (lines[0], well) == ("100.0 s, 90.0 % of it measuring (goal: 85 %)", True)
    table = [line.split() for line in lines[2:]]
    assert [(row[0], row[1]) for row in table] == [
        ("latency", "60.00"), ("numeric_error", "30.00"), ("between", "5.00"), ("start", "4.00"), ("set-up", "1.00"),
    ]  # fmt: skip
    assert [row[0] for row in table if row[-1] == "measuring"] == ["between", "start", "set-up"]
    assert not script.report(document(100.0, {"latency": 84.0}), predicted_s=None)[1]


@pytest.mark.parametrize(("predicted", "said", "well"), [(71.0, "-29 %", True), (131.0, "+31 %", False)])
def test_a_prediction_is_held_against_the_wall(script: ModuleType, predicted: float, said: str, well: bool) -> None:
    lines, good = script.report(document(100.0, {"latency": 99.0}), predicted_s=predicted)
    assert said in lines[-1]
    assert good is well


def test_the_sweep_has_eighty_cases_of_a_fifth_of_a_second(script: ModuleType) -> None:
    catalogue = describe(["cpu"])
    sweep = Sweep.parse(tomllib.loads(Path(script.CONFIG).read_text(encoding="utf-8")))
    cases, warnings = expand(sweep, catalogue, device="cpu")
    assert (len(cases), warnings, sweep.budget) == (80, [], 0.2)

"""The accuracies that come with the package are those of the committed studies."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from scripting import load

from harness.answers.known import COLUMNS, SHIPPED, shipped

ROOT = Path(__file__).parents[2]


def test_the_shipped_table_is_what_the_studies_hold() -> None:
    script = load("known_accuracies")
    assert SHIPPED.read_text(encoding="utf-8") == script.as_csv(script.table()), (
        "renew it: python scripts/known_accuracies.py --write"
    )


def test_it_says_what_the_pages_of_the_studies_say() -> None:
    """As the READMEs of the studies quote them."""
    found = {(one.task, one.problem, one.attention, one.m, one.options): one for one in shipped() if one.n <= 256}
    hard = "items=56 shapes=96 steps=500"
    assert found["recall", hard, "anchor", 16, ""].mean == pytest.approx(0.987, abs=5e-4)
    assert found["recall", hard, "anchor", 16, "init=paper"].mean == pytest.approx(0.765, abs=5e-4)
    assert found["recall", hard, "none", None, ""].mean == pytest.approx(0.181, abs=5e-4)
    assert found["digits", "", "nystrom", 16, ""].mean == pytest.approx(0.947, abs=5e-4)
    assert found["darcy", "steps=300", "none", None, ""].mean == pytest.approx(0.163, abs=5e-4)
    assert found["darcy", "steps=3000", "full", None, ""].mean == pytest.approx(0.034, abs=5e-4)
    counted = "importance=true init=orthogonal logits=cosine self=excluded"
    assert found["darcy", "steps=300", "anchor", 64, counted].mean == pytest.approx(0.076, abs=5e-4)
    floors = {one.task for one in shipped() if one.attention == "none"}
    assert floors == {"recall", "digits", "legend-segmentation", "legend-detection", "darcy", "poisson"}
    lines = {(*one.place, one.attention, one.m, one.options) for one in shipped()}
    assert len(lines) == len(shipped())  # an option named and the same left out are one line


def test_it_is_in_the_wheel() -> None:
    """Every file below the packages is: hatchling takes what git tracks."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "harness" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert ROOT / "harness" in SHIPPED.parents
    with SHIPPED.open(encoding="utf-8", newline="") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS

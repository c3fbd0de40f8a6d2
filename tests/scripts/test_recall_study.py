"""The recall study: which models it trains, that it resumes, and what its figures and table are drawn from."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripting import load

from harness.store.record import Reading, parse_options
from harness.store.runs import read, read_environment
from harness.vision.recall import Load, Trial

TINY = Trial(
    load=Load(shapes=4, colours=2, items=2, tokens=5),
    anchors=2,
    steps=1,
    batch=4,
    width=8,
    heads=2,
    depth=1,
    evaluated=8,
)


@pytest.fixture(scope="module")
def study() -> ModuleType:
    return load("recall_study")


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    return load("recall_figures")


def test_every_model_is_one_case_and_the_floor_is_at_every_load(study: Any) -> None:
    every = [trial for part in study.USUAL for trial in study.trials(part, 3, 500)]
    cases = [study.case_of(trial) for trial in every]
    assert len({case.case_id for case in cases}) == len(cases)
    assert {case.m for case in cases if case.attention in ("none", "full", "flash")} == {None}
    assert {case.m for case in cases if case.attention == "anchor"} == {4, 8, 16, 32}
    floors = {(trial.load, trial.seed) for trial in every if trial.attention == "none"}
    assert floors == {(load, seed) for load in study.LOADS.values() for seed in range(3)}
    assert [trial.seed for trial in study.trials("hard", 3, 500)] == sorted(9 * [0, 1, 2])
    for part in ("capacity", "queries"):
        found = list(study.trials(part, 1, 500))
        assert len({study.case_of(trial).case_id for trial in found}) == len(found)
        assert {trial.load.tokens for trial in found} == {64, 128, 256, 512}
        assert {trial.load for trial in found if trial.attention == "none"} == {trial.load for trial in found}
    assert all(trial.load.questions == trial.load.items for trial in found)
    assert {study.case_of(t).case_id for t in study.trials("capacity", 1, 500) if t.load.tokens == 64} & {
        study.case_of(t).case_id for t in study.trials("anchors", 1, 500)
    }  # the hard load is one of them


def test_it_trains_what_is_missing_and_nothing_twice(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, trained, run = tmp_path / "recall", [], study.run
    monkeypatch.setattr(study, "run", lambda trial: trained.append(trial) or run(trial))
    first, second = TINY, replace(TINY, attention="full", seed=1)
    study.study([first], out)
    study.study([first, second], out)
    assert trained == [first, second]
    rows = read(out)
    assert list(rows["metric"]) == 2 * ["top1", "loss", "params", "flops"]
    assert list(rows.drop_duplicates("case_id")["attention"]) == ["anchor", "full"]
    assert set(rows["scope"]) == {"model"}
    assert parse_options(rows["options"].iloc[0])["items"] == "2"
    assert rows["run_id"].nunique() == 1
    assert read_environment(out)["machine"] == rows["machine"].iloc[0]
    study.study([first, replace(TINY, seed=2)], out, minutes=0)
    assert len(trained) == 2  # no time, no model


def test_a_model_that_fails_leaves_those_before_it(study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(trial: Trial) -> Any:
        if trial.seed:
            raise FloatingPointError("the loss is nan")
        return [Reading(metric=name, value=0.5, samples=1) for name in study.METRICS]

    monkeypatch.setattr(study, "run", run)
    with pytest.raises(FloatingPointError):
        study.study([TINY, replace(TINY, seed=1), replace(TINY, seed=2)], tmp_path / "recall")
    assert list(read(tmp_path / "recall")["seed"]) == 4 * [0]


@pytest.fixture(scope="module")
def measured(study: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of made-up accuracies: 0.9 + 0.01·seed for full, 0.25 for the floor, growing with m for the others."""
    folder = tmp_path_factory.mktemp("measured") / "recall"

    def run(trial: Trial) -> list[Reading]:
        top1 = {"none": 0.25, "full": 0.9 + trial.seed / 100}.get(trial.attention, 0.1 + trial.anchors / 100)
        values = {"top1": top1, "loss": 1.0, "params": 100, "flops": 1e6 * (1 + trial.anchors)}
        return [Reading(metric=name, value=value, samples=1) for name, value in values.items()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "run", run)
        seeds = {"hard": 3, "easy": 1, "anchors": 1}
        wanted = [trial for part, count in seeds.items() for trial in study.trials(part, count, 500)]
        study.study([*wanted, *study.trials("hard", 1, 1500)], folder)
    return folder


def test_the_table_and_figures_are_of_one_length_of_training(
    figures: Any, measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["recall_figures", str(measured)])
    figures.main()
    table = capsys.readouterr().out
    assert "| 96 | 56 | full |  | 3 | 0.910 | 0.900 | 0.920 | 17.00 |" in table
    assert "| 96 | 56 | anchor init=paper | 4 | 1 | 0.140 | 0.140 | 0.140 | 5.00 |" in table
    assert "| 24 | 12 | none |  | 1 | 0.250 | 0.250 | 0.250 | 17.00 |" in table
    drawn = {path.name for path in (measured / "figures").iterdir()}
    assert drawn == {f"{name}.{kind}" for name in figures.FIGURES for kind in ("png", "svg")}
    hard = figures.against_m(figures.models(measured, None)).axes[0]
    floor = next(line for line in hard.lines if str(line.get_label()).startswith("attention removed"))
    assert list(floor.get_ydata()) == [0.25, 0.25]


def test_capacity_is_read_from_the_shapes_of_the_rows(study: Any, measured: Path, tmp_path: Path) -> None:
    """At n = 64, width 64, float32: 2·64·64·4 bytes of keys and values, m·64·4 of values at anchors."""
    capacity, figures = load("recall_capacity"), load("recall_figures")
    assert {mechanism.name for mechanism in study.WIDELY} <= set(capacity.STATE)
    frame = capacity.loaded(figures.models(measured, 500))
    state = {(row.attention, row.m): row.state for row in frame.fillna({"m": 0}).itertuples()}
    assert state["full", 0] == state["flash", 0] == 32768
    assert [state["anchor", m] for m in (4, 8, 16, 32)] == [1024, 2048, 4096, 8192]
    assert state["linformer", 16] == 8192
    assert state["none", 0] == 256
    assert set(frame["items"]) == {56}
    text = capacity.table(frame)
    assert "| 64 | full |  | 32,768 | 3 | 0.910 | 0.900 | 0.920 |" in text
    axes = capacity.draw(frame).axes
    assert [panel.get_title() for panel in axes] == ["n = 64, 56 items"]
    with pytest.raises(ValueError, match="no model whose items are 7/8 of its tokens"):
        capacity.loaded(frame[frame["items"] == 0])


def test_what_is_not_there_is_said(figures: Any, measured: Path) -> None:
    assert len(figures.models(measured, 1500)) == 9
    with pytest.raises(ValueError, match=r"--steps 7 is not in .*; it holds 500, 1500"):
        figures.models(measured, 7)


def test_too_little_for_a_figure_is_no_figure(figures: Any, measured: Path) -> None:
    frame = figures.models(measured, 1500)
    assert figures.against_m(frame) is None
    assert figures.against_load(frame) is None
    assert figures.at_the_easiest(frame) is None  # it would show the hard load

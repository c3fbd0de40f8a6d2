"""The family study: what it trains, that it resumes, and what its table says of seeds that overlap."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from scripting import load

import attentions
from harness.store.runs import read

TINY_RECALL = {"shapes": 4, "colours": 2, "items": 2, "tokens": 5, "width": 8, "heads": 2, "depth": 1}
TINY_DARCY = {"points": 16, "samples": 4, "judged": 2, "width": 8, "heads": 2, "depth": 1}


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with problems that take a moment."""
    module = load("family_study")
    recipe = {"steps": 1, "batch": 2}
    sizes = {"recall-8": (2, TINY_RECALL), "recall-4": (1, TINY_RECALL), "darcy": (2, TINY_DARCY)}
    problems = {
        name: replace(module.PROBLEMS[name], anchors=anchors, options=options, recipe=recipe)
        for name, (anchors, options) in sizes.items()
    }
    monkeypatch.setattr(module, "PROBLEMS", problems)
    monkeypatch.setattr(module, "USUAL", list(problems))
    return module


def called(study: Any, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["family_study", *words])
    study.main()


def test_every_member_can_be_built_and_floor_and_full_are_among_them() -> None:
    module = load("family_study")
    for member in module.MEMBERS:
        for problem in module.PROBLEMS.values():
            mechanism = member.on(problem)
            attentions.spec(mechanism.attention).parse_options(mechanism.options)
    assert {"none", "full", "anchor", "transolver", "flare"} <= {member.attention for member in module.MEMBERS}
    labels = [(member.attention, member.grid, *member.options.items()) for member in module.MEMBERS]
    assert len(set(labels)) == len(labels)


def test_it_trains_what_is_missing_and_writes_the_table(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, seen, train = tmp_path / "family", [], study.trained
    monkeypatch.setattr(study, "trained", lambda model: seen.append(model) or train(model))
    words = ["--out", str(out), "--beside", str(tmp_path / "no"), "--member", "none", "linformer", "--seeds", "2"]
    called(study, monkeypatch, *words, "--plan")
    assert "10 of 10 models are to be trained" in capsys.readouterr().out
    called(study, monkeypatch, *words, "--problem", "recall-8", "darcy")
    called(study, monkeypatch, *words)
    assert [(m.problem, m.member.attention, m.seed) for m in seen] == [
        (problem, name, seed) for problem in ("recall-8", "darcy") for seed in (0, 1) for name in ("none", "linformer")
    ] + [("recall-4", "linformer", 0), ("recall-4", "linformer", 1)]  # without an m it is the same at every m
    rows, lines = read(out), pd.read_csv(out / "family.csv", keep_default_na=False)
    assert rows["case_id"].nunique() == 10
    assert set(zip(lines["problem"], lines["attention"], lines["m"], strict=True)) == {
        ("recall", "none", ""), ("recall", "linformer", "2"), ("recall", "linformer", "1"), ("darcy-16", "none", ""),
        ("darcy-16", "linformer", "2"),
    }  # fmt: skip
    for line in lines.itertuples():
        metric = "top1" if line.problem == "recall" else "relative_l2"
        own = rows[(rows["attention"] == line.attention) & (rows["metric"] == metric)]
        own = own[own["m"].isna() if line.m == "" else own["m"] == int(line.m)]
        assert line.mean == pytest.approx(own["value"].mean())
        assert line.seeds == len(own) == 2
        assert int(line.params) > 0
        assert int(line.flops) > 0
        assert line.latency_ms == ""
    assert "| darcy-16 (relative_l2) | linformer | 2 | 2 |" in capsys.readouterr().out


def test_members_are_chosen_by_any_spelling_of_an_option(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--out", str(tmp_path / "f"), "--beside", str(tmp_path / "no"), "--problem", "recall-8", "--seeds", "1"]
    for spelling in ("true", "True", "yes"):
        called(study, monkeypatch, *words, "--set", f"importance={spelling}", "--plan")
        assert capsys.readouterr().out.count("importance=true;") == 4
    with pytest.raises(SystemExit, match="no member has importance=maybe"):
        called(study, monkeypatch, *words, "--set", "importance=maybe", "--plan")


def test_models_of_the_recall_study_are_not_trained_again(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are rows with other words for the same load: `items` for `model.items`."""
    recall = load("recall_study")
    trial = recall.Trial(attention="anchor", options={"init": "sharp"}, anchors=2, seed=0, steps=500,
                         load=recall.LOADS["hard"])  # fmt: skip
    readings = [recall.Reading(metric=name, value=0.5, samples=1) for name in recall.METRICS]
    monkeypatch.setattr(recall, "run", lambda trial: readings)
    recall.study([trial], tmp_path / "recall")
    words = ["--out", str(tmp_path / "family"), "--beside", str(tmp_path / "recall"), "--problem", "recall-8"]
    called(study, monkeypatch, *words, "--member", "anchor", "--set", "init=sharp", "--seeds", "2")
    rows = read(tmp_path / "family")
    assert set(rows["seed"]) == {1}
    (line,) = pd.read_csv(tmp_path / "family" / "family.csv").itertuples()
    trained = rows.set_index("metric").loc["top1", "value"]
    assert line.values.split() == ["0.5000", f"{trained:.4f}"]


def test_a_longer_training_is_another_model(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--out", str(tmp_path / "f"), "--beside", str(tmp_path / "no"), "--problem", "darcy", "--member", "none",
             "--seeds", "1"]  # fmt: skip
    called(study, monkeypatch, *words)
    called(study, monkeypatch, *words, "--times", "7", "--plan")
    said = capsys.readouterr().out
    assert "recipe.steps=7;" in said
    assert "1 of 1 models are to be trained" in said


def test_latency_is_a_run_of_its_own_and_a_column_of_the_table(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--out", str(tmp_path / "f"), "--beside", str(tmp_path / "no"), "--problem", "darcy", "--member", "none",
             "--seeds", "1"]  # fmt: skip
    called(study, monkeypatch, *words)
    called(study, monkeypatch, *words, "--latency", "--budget", "0.02")
    (row,) = read(tmp_path / "f_latency").itertuples()
    (line,) = pd.read_csv(tmp_path / "f" / "family.csv").itertuples()
    assert row.metric == "latency"
    assert line.latency_ms == row.value > 0


def test_better_takes_all_seeds_and_less_is_better_for_an_error() -> None:
    module = load("family_table")
    lines = pd.DataFrame(
        [
            ("recall", "anchor", " init=sharp", 8, "top1", 3, 0.80, 0.90),
            ("recall", "anchor", " gate=True", 8, "top1", 3, 0.91, 0.95),
            ("recall", "anchor", " bias=True", 8, "top1", 1, 0.95, 0.95),
            ("recall", "flare", "", 8, "top1", 3, 0.85, 0.95),
            ("recall", "flare", "", 4, "top1", 3, 0.95, 0.96),
            ("darcy", "anchor", " init=sharp", 16, "relative_l2", 3, 0.80, 0.90),
            ("darcy", "flare", "", 16, "relative_l2", 3, 0.91, 0.95),
            ("darcy", "full", "", pd.NA, "relative_l2", 3, 0.1, 0.2),
        ],
        columns=["problem", "attention", "options", "m", "metric", "seeds", "lowest", "highest"],
    )
    lines["m"] = lines["m"].astype("Int64")
    said = [module._beside(line, lines) for line in lines.itertuples()]
    assert said == ["", "better", "few seeds", "within", "", "", "worse", "better"]


def test_a_gain_is_seed_by_seed_and_positive_where_an_error_is_less() -> None:
    module = load("family_table")
    values = {" init=sharp": [0.50, 0.60, 0.40], " local=3": [0.47, 0.58, 0.36], " bias=True": [0.50]}
    rows = pd.DataFrame(
        [
            ("darcy", "anchor", options, 16, "relative_l2", seed, value)
            for options, own in values.items() for seed, value in enumerate(own)
        ],
        columns=["problem", "attention", "options", "m", "metric", "seed", "value"],
    )  # fmt: skip
    base = rows[rows["options"] == " init=sharp"]
    found = {options: module._gain(group, base) for options, group in rows.groupby("options")}
    told = found[" local=3"]
    assert (told["gain"], told["gain_seeds"], told["gain_better"]) == (pytest.approx(0.03), 3, 3)
    assert told["gain_high"] - told["gain"] == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-4)  # Student's t, 2 degrees
    assert all(pd.isna(value) for name in (" init=sharp", " bias=True") for value in found[name].values())
    less = {options: module._gain(group, base.assign(metric="top1")) for options, group in
            rows.assign(metric="top1").groupby("options")}  # fmt: skip
    assert less[" local=3"]["gain"] == pytest.approx(-0.03)


def test_figures_are_of_problems_with_members_enough_and_the_front_is_what_nothing_beats_in_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load("family_figures")
    members = [("none", "", 0.2, 0.5), ("full", "", 1.0, 0.9), ("anchor", " init=sharp", 0.8, 0.6),
               ("anchor", " local=3", 0.7, 0.6), ("flare", "", 0.5, 0.7), ("agent", "", 0.9, float("nan"))]  # fmt: skip
    lines = pd.DataFrame(
        [
            {
                "problem": "recall", "attention": name, "options": options, "metric": "top1", "seeds": 2, "mean": mean,
                "m": None if name in ("none", "full") else 8, "lowest": mean - 0.1, "highest": mean + 0.1,
                "values": f"{mean - 0.1} {mean + 0.1}", "latency_ms": taken,
            }
            for name, options, mean, taken in members
        ]
    )  # fmt: skip
    few = lines[lines["attention"].isin(["full", "flare"])].assign(problem="darcy")
    pd.concat([lines, few]).to_csv(tmp_path / "family.csv", index=False)
    monkeypatch.setattr(sys, "argv", ["family_figures", str(tmp_path)])
    module.main()
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["recall.png", "recall.svg"]
    (own,) = module.problems(lines).values()
    assert [*own["label"]][:3] == ["full", "agent", "anchor init=sharp"]
    assert module.front(own) == ["anchor init=sharp", "full"], "no floor, none dominated, none without a time"
    errors = own.assign(metric="relative_l2")
    assert module.front(errors) == ["anchor local=3", "flare"], "less is better, and the quicker of two"

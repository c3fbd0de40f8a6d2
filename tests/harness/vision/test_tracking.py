"""Trackers of trainings: TensorBoard gets what metrics.csv gets, step by step; what is not here says how to get it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_training import SETTINGS, Silent, plan

from harness import cli
from harness.errors import UsageError
from harness.store import folders
from harness.store.curves import read_curves
from harness.vision import tracking
from harness.vision.train import train


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows of a run: step → value of each curve."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder / tracking.FOLDER / "tensorboard"))
    events.Reload()
    return {tag: {one.step: one.value for one in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def curves(folder: Path) -> dict[str, dict[int, float]]:
    """The same of metrics.csv."""
    found: dict[str, dict[int, float]] = {}
    rows: Any = read_curves(folder).itertuples()
    for row in rows:
        found.setdefault(f"{row.split}/{row.metric}", {})[int(row.step)] = row.value
    return found


def test_tensorboard_shows_what_metrics_csv_holds(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(plan(recipe={"log": 2}), tmp_path / "run", listener=Silent(), device="cpu", track="tensorboard")
    shown, held = scalars(tmp_path / "run"), curves(tmp_path / "run")
    assert {"train/loss", "train/lr", "val/top1"} <= set(held) == set(shown)
    for name, values in held.items():
        assert shown[name] == pytest.approx(values, rel=1e-6), name
    folders.check_removable(tmp_path / "run")  # its files are a run's


def test_a_resumed_training_goes_on_in_the_same_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    given: dict[str, Any] = {"listener": Silent(), "device": "cpu", "track": "tensorboard"}
    train(plan(recipe={"log": 1}), tmp_path / "run", until=3, **given)
    train(plan(recipe={"log": 1}), tmp_path / "run", resume=True, **given)
    shown, held = scalars(tmp_path / "run"), curves(tmp_path / "run")
    assert sorted(shown["train/loss"]) == sorted(held["train/loss"]) == [1, 2, 3, 4, 5, 6]
    assert shown["train/loss"] == pytest.approx(held["train/loss"], rel=1e-6)


def test_without_a_tracker_there_is_no_folder(tmp_path: Path) -> None:
    train(plan(), tmp_path / "run", listener=Silent(), device="cpu")
    assert not (tmp_path / "run" / tracking.FOLDER).exists()


@pytest.mark.parametrize("name", tracking.GET)
def test_a_missing_tracker_says_how_to_get_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda asked: None)
    words = ["train", "classification", *SETTINGS, "--track", name, "--device", "cpu", "--out", str(tmp_path / "run")]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert f"the tracker {name} is unavailable: it needs the package {name}: {tracking.GET[name]}" in said
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_guessed() -> None:
    with pytest.raises(UsageError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        tracking.check("tensorbord")
    assert tracking.check("") == ""


def test_settings_are_flat_and_plain() -> None:
    found = tracking.flat({"recipe": {"lr": 0.1, "ema": None}, "fast": True, "sizes": [1, 2]})
    assert found == {"recipe.lr": 0.1, "recipe.ema": "None", "fast": True, "sizes": "[1, 2]"}

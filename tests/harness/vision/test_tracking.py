"""Trackers of trainings: each gets what metrics.csv gets, step by step; what is not here says how to get it.

wandb and mlflow are no dependencies: a stand-in that writes down what accelerate's own trackers call takes their place.
"""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator
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


STAND_INS = {
    "wandb": """
        calls = []
        class _Config:
            def update(self, values, allow_val_change):
                calls.append(("settings", None, values))
        class _Run:
            def log(self, values, step):
                calls.append(("log", step, values))
            def finish(self):
                calls.append(("end", None, {}))
        config = _Config()
        def init(**where):
            calls.append(("begin", None, where))
            return _Run()
    """,
    "mlflow": """
        from types import SimpleNamespace
        calls = []
        utils = SimpleNamespace(validation=SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100))
        def set_tracking_uri(uri):
            calls.append(("place", None, {"uri": uri}))
        def search_experiments(filter_string):
            return []
        def create_experiment(name, artifact_location, tags):
            calls.append(("begin", None, {"project": name, "artifacts": artifact_location}))
            return "1"
        def start_run(run_id, experiment_id, run_name, nested, tags, description):
            calls.append(("run", None, {"name": run_name}))
        def log_params(values):
            calls.append(("settings", None, values))
        def log_metrics(values, step):
            calls.append(("log", step, values))
        def end_run():
            calls.append(("end", None, {}))
    """,
}


@pytest.fixture(params=STAND_INS)
def stand_in(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a tracker whose package writes down its calls."""
    name = request.param
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / f"{name}.py").write_text(textwrap.dedent(STAND_INS[name]))
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield name
    sys.modules.pop(name, None)


def test_the_other_trackers_get_what_metrics_csv_holds_and_the_settings_once(stand_in: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    given: dict[str, Any] = {"listener": Silent(), "device": "cpu", "track": stand_in}
    train(plan(recipe={"log": 1}), run, until=3, **given)
    calls = importlib.import_module(stand_in).calls
    before = list(calls)
    calls.clear()
    train(plan(recipe={"log": 1}), run, resume=True, **given)
    for told in (before, calls):
        assert told[-1][0] == "end"
        assert all(type(value) is float for what, _, values in told if what == "log" for value in values.values())
    (settings,) = [values for what, _, values in before if what == "settings"]
    assert settings["recipe.log"] == 1
    assert settings["task"] == "classification"
    assert not any(what == "settings" for what, _, _ in calls)  # a resumed run's are the ones it has
    shown: dict[str, dict[int, float]] = {}
    for what, step, values in [*before, *calls]:
        for name, value in values.items() if what == "log" else ():
            shown.setdefault(name, {})[step] = value
    assert shown == curves(run)


def test_the_other_trackers_are_told_where_and_under_which_name(stand_in: str, tmp_path: Path) -> None:
    """Weights & Biases' files and all of MLflow's stand in the run, unless MLFLOW_TRACKING_URI names a server."""
    train(plan(), tmp_path / "run", listener=Silent(), device="cpu", track=stand_in)
    calls = importlib.import_module(stand_in).calls
    place = tmp_path / "run" / tracking.FOLDER
    if stand_in == "wandb":
        assert calls[0] == ("begin", None, {"project": tracking.PROJECT, "name": "run", "dir": str(place)})
        return
    where = place / "mlflow"
    assert calls[:3] == [
        ("place", None, {"uri": f"sqlite:///{where / 'mlflow.db'}"}),
        ("begin", None, {"project": tracking.PROJECT, "artifacts": where.as_uri()}), ("run", None, {"name": "run"}),
    ]  # fmt: skip


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

"""A training's losses and evaluations handed to TensorBoard, Weights & Biases or MLflow, by accelerate's trackers.

    check("tensorboard")                                        # before anything is loaded
    tracker = start("tensorboard", Path("runs/a"), plan.document(), step=0)
    tracker.log({"train/loss": 0.7}, step=10)
    tracker.finish()

They are written beside metrics.csv, not in its place: what harness reads is its own. TensorBoard's files and MLflow's
stand in `tracking/` of the run, MLflow's where no server is named by MLFLOW_TRACKING_URI; Weights & Biases sends them
to its service, under the account it is logged in with.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.errors import UsageError, unknown

FOLDER = "tracking"
GET = {
    "tensorboard": "pip install 'attention-harness[track]'", "wandb": "pip install wandb, then wandb login",
    "mlflow": "pip install mlflow",
}  # fmt: skip
PROJECT = "attention-harness"
MOST_LETTERS = 240  # of a setting; MLflow takes 500


def check(name: str) -> str:
    """The tracker, if there is such a one here. Raises UsageError for an unknown one and for a missing package."""
    if name and name not in GET:
        raise UsageError(unknown("tracker", name, GET))
    if name and find_spec(name) is None:
        raise UsageError(f"the tracker {name} is unavailable: it needs the package {name}: {GET[name]}")
    return name


def start(name: str, run: Path, settings: Mapping[str, Any], *, step: int) -> Any:
    """An accelerate tracker (log, finish) of a run; step: the last that was done, from which it goes on.

    settings: what is shown beside the curves. Raises UsageError.
    """
    from accelerate import tracking

    check(name)
    place = run / FOLDER
    place.mkdir(exist_ok=True)
    if name == "tensorboard":
        # What an earlier session wrote beyond its last checkpoint is taken back.
        tracker: Any = tracking.TensorBoardTracker(name, str(place), purge_step=step + 1 if step else None)
    elif name == "wandb":
        tracker = tracking.WandBTracker(PROJECT, name=run.name, dir=str(place))
    else:
        where = (place / name).resolve()
        if "MLFLOW_TRACKING_URI" not in os.environ:  # else it would write to mlflow.db in the current folder
            where.mkdir(exist_ok=True)
            importlib.import_module(name).set_tracking_uri(f"sqlite:///{where / 'mlflow.db'}")
        tracker = tracking.MLflowTracker(PROJECT, logging_dir=where.as_uri(), run_name=run.name)
    tracker.start()
    if not step:
        tracker.store_init_configuration(flat(settings))
    return tracker


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Settings as trackers take them: {"recipe.lr": 0.001}; what is no number or truth value as text."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        else:
            found[name] = value if isinstance(value, bool | int | float) else str(value)[:MOST_LETTERS]
    return found

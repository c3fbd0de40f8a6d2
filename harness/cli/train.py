"""harness train classification --attention anchor --anchors 16 --steps 500 --out runs/a"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from harness.errors import UsageError

PLAIN = ("epochs", "steps", "batch", "lr", "seed", "workers")  # of the recipe, with an option of their own


def command(
    task: str = typer.Argument("", help="classification, detection, segmentation, …; a resumed run knows its own."),
    data: Path | None = typer.Option(
        None, "--data", help="Folder of data; classification has digits.", show_default=False
    ),
    out: Path | None = typer.Option(None, "--out", help="Run folder. Default: runs/<task>-<time>.", show_default=False),
    model: str = typer.Option("", "--model", help="Default: anchorformer_tiny.", show_default=False),
    attention: str = typer.Option(
        "", "--attention", help="Variant or variant:backend. Default: anchor.", show_default=False
    ),
    anchors: int | None = typer.Option(None, "--anchors", help="The variant's m. Default: 30.", show_default=False),
    set_: list[str] = typer.Option([], "--set", help="anchor.init=paper, classification.size=32; repeatable."),
    epochs: str = typer.Option("", "--epochs", help="How long, in passes over the data.", show_default=False),
    steps: str = typer.Option("", "--steps", help="How long, in steps; wins over epochs.", show_default=False),
    batch: str = typer.Option("", "--batch", help="Images a step, over all processes.", show_default=False),
    lr: str = typer.Option("", "--lr", help="Peak learning rate.", show_default=False),
    seed: str = typer.Option("", "--seed", help="Of weights, order, augmentation.", show_default=False),
    workers: str = typer.Option("", "--workers", help="Processes that load data, each.", show_default=False),
    recipe: list[str] = typer.Option([], "--recipe", help="Any other number: ema=0.999, precision=bf16; repeatable."),
    plugin: list[str] = typer.Option(
        [], "--plugin", help="A Python file that defines variants of your own; it is run."
    ),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:<index>."),
    until: int | None = typer.Option(None, "--until", help="Stop, saved, after this step.", show_default=False),
    track: str = typer.Option(
        "", "--track", metavar="NAME", help="Log to tensorboard, wandb or mlflow as well.", show_default=False
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on with --out where it was stopped."),
    as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout instead of the table."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress on stderr."),
) -> None:
    """Train a vision model with any attention: checkpoints, curves, rows; under torchrun on many GPUs."""
    import json
    import os
    import shlex
    import sys

    from harness.cli import _vision

    try:
        from harness.vision import tracking
        from harness.vision import train as training
    except ModuleNotFoundError as error:
        raise _vision.missing_extra(error) from None
    from harness.store import runs as store
    from harness.vision.runfolder import LAST

    folder = out
    if folder is None:
        if resume:
            raise UsageError("--resume needs --out, the folder of the run to go on with")
        folder = _fresh(task)
    numbers = {
        name: value for name, value in zip(PLAIN, (epochs, steps, batch, lr, seed, workers), strict=True) if value
    }
    plugins = _vision.with_plugins(plugin, resumed=folder if resume else None)
    plan = _plan(
        task, folder if resume else None, data=data, model=model, attention=attention, anchors=anchors, settings=set_,
        recipe={**_vision.pairs(recipe, option="--recipe", example="ema=0.999"), **numbers},
    )  # fmt: skip
    tracking.check(track)
    if until is not None and until < 1:
        raise UsageError(f"--until takes a step from 1 on, not {until}")
    store.check_folder(folder, resume=resume) if _first() else None
    progress = _vision.Progress(quiet=quiet, main=_first())
    try:
        outcome = training.train(
            plan, folder, listener=progress, device=_device(device), resume=resume, until=until, track=track,
            plugins=plugins,
        )  # fmt: skip
    except KeyboardInterrupt as stopped:
        again = f"go on with: harness train --resume --out {shlex.quote(str(folder))}"
        kept = str(stopped) or ("at once; the last checkpoint is kept" if (folder / LAST).is_file() else "")
        raise KeyboardInterrupt(f"{kept}; {again}" if kept else "nothing was saved") from None
    finally:
        progress.close()
    if not _first():
        return
    frame = store.read(folder)
    if as_json:
        facts = {"run": str(folder), "step": outcome.step, "steps": outcome.steps, "seconds": outcome.seconds}
        print(json.dumps({**facts, "best": outcome.best, "rows": _vision.records(frame)}, indent=2, allow_nan=False))
        return
    for row in _vision.records(frame):
        value = f"{row['value']:,.4g}" if row["status"] == "ok" else f"{row['status']}: {row['note']}"
        print(f"{row['metric']:<12} {value}")
    where = shlex.quote(str(folder))
    if outcome.step < outcome.steps:
        print(f"step {outcome.step} of {outcome.steps}; go on with: harness train --resume --out {where}")
    else:
        print(f"\n{folder}{os.sep}  cost beside accuracy: harness eval --checkpoint {where}")
    sys.stdout.flush()


def _plan(
    task: str, resumed: Path | None, *, data: Path | None, model: str, attention: str, anchors: int | None,
    settings: list[str], recipe: dict[str, str],
) -> Any:  # fmt: skip
    """What was asked for, on top of the task's defaults or of the run that is resumed. Raises UsageError."""
    import attentions
    from harness.cli import _vision
    from harness.store.rows import is_there
    from harness.vision import checkpoint, tasks
    from harness.vision.plan import Plan
    from harness.vision.recipe import Recipe
    from harness.vision.runfolder import LAST
    from harness.vision.task import Mechanism, checked

    begun = resumed is not None and is_there(resumed / LAST)
    if resumed and not task and not begun:
        raise UsageError(f"{resumed / LAST}: no such file: name the task and its settings to start from the first step")
    stored = Plan.of(checkpoint.load(resumed / LAST, of_run=True)[1]["plan"]) if resumed and begun else None
    name = task or (stored.task if stored else "")
    if not name:
        raise UsageError(f"which task? valid: {', '.join(tasks.names())}")
    if stored and name != stored.task:
        raise UsageError(f"{resumed} trains {stored.task}, not {name}")
    kind = tasks.get(name)
    before = stored or Plan(task=name, recipe=checked(Recipe, kind.recipe, what="recipe"))
    variant = attentions.spec(attention or before.mechanism.attention)
    own = _vision.by_owner(
        _vision.pairs(settings, option="--set", example="anchor.init=paper"), owners=(variant.name, name)
    )
    chosen = {**before.options, **own[name], **({"model": model} if model else {})}
    kind.parse(chosen)
    variant.parse_options(own[variant.name])
    kept = before.mechanism.options if not attention or attention == before.mechanism.attention else {}
    return Plan(
        task=name,
        options=chosen,
        mechanism=Mechanism(
            attention=attention or before.mechanism.attention,
            anchors=before.mechanism.anchors if anchors is None else anchors,
            options={**kept, **own[variant.name]},
        ),
        recipe=checked(Recipe, {**before.recipe.model_dump(), **recipe}, what="recipe"),
        data=str(data) if data else before.data,
    )


def _device(text: str) -> str:
    from harness.machine.environment import resolve_device

    return text if text == "auto" else resolve_device(text)


def _first() -> bool:
    """Whether this process is the one that writes and speaks, alone or under torchrun."""
    import os

    return os.environ.get("RANK", "0") == "0"


def _fresh(task: str) -> Path:
    from datetime import UTC, datetime

    name, number = f"{task or 'run'}-{datetime.now(UTC):%Y%m%d-%H%M%S}", 1
    while (folder := Path("runs") / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder

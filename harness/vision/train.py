"""Training on accelerate: one process, or many under torchrun, by the same code; stopped and resumed bit for bit.

    plan = Plan(task="classification", recipe=Recipe(steps=1000), data="imagenet")
    outcome = train(plan, Path("runs/a"), listener=listener)
    outcome = train(plan, Path("runs/a"), listener=listener, resume=True)       # goes on where it was stopped

A run's folder holds last.safetensors (all that resuming needs), best.safetensors (the weights that did best on the
validation data), metrics.csv, and, as every run, measurements.csv, environment.json and figures/.

Order of the data, augmentation, dropped paths and learning rate are functions of the seed and the step, so a checkpoint
holds tensors and a step number, no generator's state. On the CPU a resumed run ends with the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import send_to_device
from torch import Tensor

from harness.errors import Failure, UsageError
from harness.store.record import merit
from harness.store.rows import is_there
from harness.vision import report, tracking
from harness.vision.evaluate import accuracy
from harness.vision.plan import Plan
from harness.vision.recipe import rate, seed_everything
from harness.vision.runfolder import BEST, LAST, RunFolder
from harness.vision.session import Session
from harness.vision.signals import Stop, stop_on_signals
from harness.vision.stream import batches


class Listener(Protocol):
    """Who is told how a training goes."""

    def begin(self, description: str, step: int, steps: int) -> None: ...
    def trained(self, step: int, losses: Mapping[str, float], lr: float, images: int) -> None: ...
    def evaluated(self, step: int, values: Mapping[str, float]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Where a training stands: its last step of how many, its last evaluation, the best, seconds of this session."""

    step: int
    steps: int
    values: dict[str, float]
    best: dict[str, Any]
    seconds: float


def train(
    plan: Plan, out: Path, *, listener: Listener, device: str = "auto", resume: bool = False, until: int | None = None,
    track: str = "", plugins: Mapping[str, str] = {},
) -> Outcome:  # fmt: skip
    """Train to the end, or to step `until`, leaving a checkpoint.

    track: tensorboard, wandb or mlflow, which gets the losses and evaluations too. plugins: the digests of what was
    loaded for it (harness.cases.plugins), kept in the run.
    Raises UsageError for what is asked for or what a file holds; Failure for a loss that is not finite, the last good
    checkpoint kept; KeyboardInterrupt for SIGTERM, SIGINT and SIGHUP, after a checkpoint of the step they came in.
    """
    tracking.check(track)
    session = Session.open(plan, device)
    main = session.accelerator.is_main_process
    metrics = (*session.task.metrics, "loss", "params")
    with stop_on_signals() as stop, RunFolder.open(out, metrics=metrics, resume=resume, write=main) as folder:
        if resume and is_there(out / LAST):
            session.restore(out / LAST)
        elif folder.store is not None and folder.store.done:
            raise UsageError(f"{out / LAST}: no such file, and {out} is a finished run: nothing to go on from")
        folder.rewind(session.step)  # of what was stopped before its first checkpoint nothing counts
        folder.describe(session.place, plan.document(), plugins=plugins)
        listener.begin(session.describe(), session.step, session.steps)
        started, first = time.monotonic(), session.step
        if track and main:
            folder.tracker = tracking.start(track, out, plan.document(), step=session.step)
        try:
            _steps(session, folder, listener, stop, min(until or session.steps, session.steps))
        finally:
            seconds = time.monotonic() - started
            folder.close_session(first_step=first, last_step=session.step, seconds=seconds)
            if folder.tracker is not None:
                folder.tracker.finish()
        if session.step == session.steps and main and folder.store is not None and not folder.store.done:
            report.finish(session, folder)
        session.accelerator.wait_for_everyone()
    return Outcome(
        step=session.step, steps=session.steps, values=dict(session.values), best=dict(session.best), seconds=seconds
    )


def _steps(s: Session, folder: RunFolder, listener: Listener, stop: Stop, last: int) -> None:
    """Steps up to `last`, looking at the losses, evaluating and saving as the recipe says."""
    recipe, accelerator = s.plan.recipe, s.accelerator
    epoch = -(-len(s.data["train"]) // recipe.batch)
    every = recipe.evaluate or min(s.steps, max(epoch, s.steps // 10))
    save = recipe.save or every
    objective = s.task.objective(s.options, s.data["train"])
    if s.step and s.evaluated != s.step and (s.step % every == 0 or s.step == s.steps):
        _evaluate(s, folder, listener)  # what stopped the run came between this step and its evaluation
        s.save(folder.path / LAST)
    sums = {name: torch.tensor(value, device=accelerator.device) for name, value in s.window.items()}
    for batch in batches(
        s.data["train"], s.task.collate, seed=recipe.seed, batch=recipe.batch, start=s.step, steps=last,
        process=accelerator.process_index, processes=accelerator.num_processes, workers=recipe.workers,
    ):  # fmt: skip
        for name, value in _step(s, objective, send_to_device(batch, accelerator.device)).items():
            sums[name] = sums[name] + value if name in sums else value
        s.step += 1
        due = s.step % every == 0 or s.step == s.steps
        keep = due or s.step % save == 0
        told = keep or s.step % recipe.log == 0
        if not (told or s.step == last or (stop.asked and accelerator.num_processes == 1)):
            continue
        s.window, ending = _look(s, sums, stop, folder)
        if told:
            _tell(s, folder, listener)
            sums = {}
        if due and not ending:
            _evaluate(s, folder, listener)
        if keep or ending or s.step == last:
            s.save(folder.path / LAST)
        if ending:
            name = stop.name or "a signal"
            raise KeyboardInterrupt(f"{name} at step {s.step} of {s.steps}; saved {folder.path / LAST}")


def _step(s: Session, objective: Any, batch: Any) -> dict[str, Tensor]:
    """One update of the weights. Returns the losses and the gradient's norm, still on the device."""
    recipe, accelerator = s.plan.recipe, s.accelerator
    seed_everything(recipe.seed, 2, s.step, accelerator.process_index)
    lr = rate(recipe, s.step, s.steps)
    for group in s.optimizer.param_groups:
        group["lr"] = lr * group["scale"]
    losses = objective(s.model, batch)
    total = torch.stack([value.float() for value in losses.values()]).sum()
    accelerator.backward(total)
    norm = accelerator.clip_grad_norm_(s.model.parameters(), recipe.clip or math.inf)
    s.optimizer.step()
    s.optimizer.zero_grad()
    if s.ema is not None:
        s.ema.update(s.network, step=s.step)
    parts = losses if len(losses) > 1 else {}
    return {name: value.detach().float() for name, value in {"loss": total, **parts, "gradient": norm}.items()}


def _look(s: Session, sums: dict[str, Tensor], stop: Stop, folder: RunFolder) -> tuple[dict[str, float], bool]:
    """The sums since they were last told, meaned over processes, and whether any was asked to stop.

    Raises Failure where one is not finite: what the next checkpoint would hold is lost.
    """
    mine = [*sums.values(), torch.tensor(float(stop.asked), device=s.accelerator.device)]
    reduced: Any = s.accelerator.reduce(torch.stack([value.reshape(()) for value in mine]), reduction="mean")
    *values, asked = reduced.tolist()
    found = dict(zip(sums, values, strict=True))
    # Under fp16 a gradient that overflows is skipped and its scale lowered: only the loss tells that all is lost.
    heeded = [name for name in found if name != "gradient" or s.plan.recipe.precision != "fp16"]
    wrong = next((name for name in heeded if not math.isfinite(found[name])), None)
    if wrong is not None:
        kept = f"the last good checkpoint is kept: {folder.path / LAST}" if s.saved else "no checkpoint was written yet"
        raise Failure(
            f"{wrong} is {found[wrong]} between steps {s.told + 1} and {s.step}; {kept}; "
            "a lower --lr or a smaller --recipe clip may help"
        )
    return found, asked > 0


def _tell(s: Session, folder: RunFolder, listener: Listener) -> None:
    """Log the means since they were last told."""
    steps = s.step - s.told
    losses = {name: value / steps for name, value in s.window.items()}
    lr = rate(s.plan.recipe, s.step - 1, s.steps)
    folder.log(s.step, "train", {**losses, "lr": lr})
    listener.trained(s.step, losses, lr, s.plan.recipe.batch * steps)
    s.window, s.told = {}, s.step


def _evaluate(s: Session, folder: RunFolder, listener: Listener) -> None:
    """Judge the weights, and keep them where they are the best yet."""
    recipe = s.plan.recipe
    s.values = accuracy(
        s.task, s.options, s.judged, s.data["val"], batch=max(1, recipe.batch // s.accelerator.num_processes),
        accelerator=s.accelerator, workers=recipe.workers,
    )  # fmt: skip
    s.evaluated = s.step
    folder.log(s.step, "val", s.values)
    listener.evaluated(s.step, s.values)
    first = s.task.metrics[0]
    if merit(first, s.values[first]) > (merit(first, s.best["value"]) if s.best else -math.inf):
        s.best = {"step": s.step, "metric": first, "value": s.values[first]}
        s.save_weights(folder.path / BEST)

"""A checkpoint judged: accuracy and cost of the same weights, as the rows of one case.

exam = prepare(load(Path("runs/a")), device="cpu", batch=1)
judged = judge(exam, budget_s=2.0)
judged.case, judged.readings, judged.samples
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import nn

from harness.errors import UsageError
from harness.measuring.trained import COSTS, Inference, cost
from harness.store.record import Case, Reading
from harness.vision import checkpoint, tasks
from harness.vision.data import identity
from harness.vision.evaluate import accuracies, accuracy, parameters
from harness.vision.plan import Origin, Plan, case_of, shape_of
from harness.vision.processes import join
from harness.vision.runfolder import BEST, LAST
from harness.vision.task import Task


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network with the weights of a checkpoint, and what it was trained as."""

    plan: Plan
    task: Task
    network: nn.Module
    data: Any
    step: int
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The readings of one checkpoint, accuracy first, and the raw samples of its latency."""

    case: Case
    readings: tuple[Reading, ...]
    samples: dict[str, list[float]]


def metrics_of(task: Task) -> tuple[str, ...]:
    """What `judge` reads of a task's models, in order."""
    return (*task.metrics, "params", *COSTS)


def load(path: Path, *, task: str = "", data: Path | None = None, best: bool = False) -> Trained:
    """The network of a run's folder (its last step, or its best) or of a checkpoint file, with validation data.

    Raises UsageError: no checkpoint, of another task, other classes than those it was trained on.
    """
    of_run = path.is_dir()
    if of_run:
        path = path / (BEST if best else LAST)
    parts, facts = checkpoint.load(path, of_run=of_run)
    plan = Plan.of(facts["plan"])
    if task and task != plan.task:
        raise UsageError(f"checkpoint {path} was trained for {plan.task}, not {task}")
    if data is not None:
        plan = replace(plan, data=str(data))
    images = plan.load("val")
    if list(images.classes) != facts["classes"]:
        raise UsageError(
            f"checkpoint {path} knows {len(facts['classes'])} classes ({', '.join(facts['classes'][:3])} …) and "
            f"{plan.data or 'the data'} has {len(images.classes)} ({', '.join(list(images.classes)[:3])} …)"
        )
    fresh = replace(
        plan, options={k: v for k, v in plan.options.items() if k not in ("weights", "teacher", "teacher_model")}
    )
    network = fresh.build(images)
    tensors = checkpoint.judged(parts)
    checkpoint.fill(network, tensors, path=path)
    origin = Origin(
        weights=identity.weights(tensors), step=facts["step"], start=facts.get("start", ""),
        data=facts.get("data", {}).get("train", ""), judged=identity.digest_of(images),
    )  # fmt: skip
    return Trained(
        plan=plan, task=tasks.get(plan.task), network=network, data=images, step=facts["step"], origin=origin
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Exam:
    """A network on its device, the batch that its cost is measured on, and the case that this is."""

    trained: Trained
    accelerator: Accelerator
    items: Any
    case: Case


def prepare(trained: Trained, *, device: str, batch: int) -> Exam:
    """Move a network to a device; take the first images of the validation data. Nothing is measured."""
    accelerator = join(device)
    network = trained.network.to(accelerator.device).eval()
    task = trained.task
    items = task.collate([trained.data[index % len(trained.data)] for index in range(batch)])
    items = send_to_device(items, accelerator.device)
    shape = shape_of(network, lambda: task.predict(network, items))
    case = case_of(trained.plan, shape, device=device, origin=trained.origin)
    return Exam(trained=trained, accelerator=accelerator, items=items, case=case)


def judge(exam: Exam, *, budget_s: float = 2.0) -> Judged:
    """Accuracy over all validation data, parameters, then the cost of one call on the batch, in float32.

    The cost is measured by the metrics of `harness run`.
    """
    trained, task = exam.trained, exam.trained.task
    plan, network = trained.plan, trained.network
    values = accuracy(
        task, task.parse(plan.options), network, trained.data, batch=plan.recipe.batch, accelerator=exam.accelerator,
        workers=plan.recipe.workers,
    )  # fmt: skip
    samples: dict[str, list[float]] = {}
    inference = Inference(network, task, exam.items, exam.case)
    readings = (
        *accuracies(values, samples=len(trained.data), note=f"weights of step {trained.step}"),
        parameters(network),
        *cost(inference, budget_s=budget_s, samples=samples),
    )
    return Judged(case=exam.case, readings=readings, samples=samples)

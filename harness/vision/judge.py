"""A checkpoint judged: accuracy and cost of the same weights, as the rows of one case.

judged = judge(Path("runs/a"), batch=1, budget_s=2.0)
judged.case, judged.readings, judged.samples
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import nn

from harness.errors import UsageError
from harness.record import Case, Reading
from harness.vision import checkpoint, tasks
from harness.vision.evaluate import Inference, accuracies, accuracy, cost, parameters
from harness.vision.plan import Plan, case_of, shape_of
from harness.vision.runfolder import BEST, LAST
from harness.vision.task import Task

COSTS = ("params", "flops", "latency", "peak_memory")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network with the weights of a checkpoint, and what it was trained as."""

    plan: Plan
    task: Task
    network: nn.Module
    data: Any
    step: int


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The readings of one checkpoint, accuracy first, and the raw samples of its latency."""

    case: Case
    readings: tuple[Reading, ...]
    samples: dict[str, list[float]]


def metrics_of(task: Task) -> tuple[str, ...]:
    """What `judge` reads of a task's models, in order."""
    return (*task.metrics, *COSTS)


def load(path: Path, *, task: str = "", data: Path | None = None, best: bool = False) -> Trained:
    """The network of a run's folder (its last step, or its best) or of a checkpoint file, with validation data.

    Raises UsageError: no checkpoint, of another task, other classes than those it was trained on.
    """
    if path.is_dir():
        path = path / (BEST if best else LAST)
    parts, facts = checkpoint.load(path)
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
    checkpoint.fill(network, parts.get("ema") or parts["model"], path=path)
    return Trained(plan=plan, task=tasks.get(plan.task), network=network, data=images, step=facts["step"])


def judge(
    trained: Trained,
    *,
    device: str = "auto",
    batch: int = 1,
    budget_s: float = 2.0,
    say: Callable[[str], None] = print,
) -> Judged:
    """Accuracy over all validation data, parameters, then the cost of one call on `batch` images.

    The cost is measured in float32 on the first images of the validation data, by the metrics of `harness run`.
    """
    plan, task = trained.plan, trained.task
    options = task.parse(plan.options)
    accelerator = Accelerator(cpu=device == "cpu")
    network = trained.network.to(accelerator.device)
    say(f"{task.name}: accuracy on {len(trained.data)} images")
    values = accuracy(
        task, options, network, trained.data, batch=plan.recipe.batch, accelerator=accelerator,
        workers=plan.recipe.workers,
    )  # fmt: skip
    items = task.collate([trained.data[index % len(trained.data)] for index in range(batch)])
    items = send_to_device(items, accelerator.device)
    where = accelerator.device.type if accelerator.device.index is None else str(accelerator.device)
    network.eval()
    shape = shape_of(network, lambda: task.predict(network, items))
    case = case_of(plan, shape, device=where if where != "cuda" else "cuda:0")
    say(f"{task.name}: cost of {case}")
    samples: dict[str, list[float]] = {}
    readings = (
        *accuracies(values, samples=len(trained.data), note=f"weights of step {trained.step}"),
        parameters(network),
        *cost(Inference(network, task, items, case), budget_s=budget_s, samples=samples),
    )
    return Judged(case=case, readings=readings, samples=samples)

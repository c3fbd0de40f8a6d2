"""How good a trained model is, and what it costs: accuracy, parameters, FLOPs, latency and peak memory side by side.

values = accuracy(task, options, network, data, batch=64)         # {"top1": 0.93, "top5": 0.99}
for reading in cost(network, Inference(network, task, batch), case, budget_s=2.0): ...
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from torch import Tensor, nn

import attentions
from harness import subject as subjects
from harness.metrics import Settings, flops, latency, memory
from harness.record import Case, Reading
from harness.stats import proportion_interval
from harness.vision.stream import in_order
from harness.vision.task import Data, Task


def accuracy(
    task: Task, options: Any, network: nn.Module, data: Data, *, batch: int, accelerator: Accelerator, workers: int = 0
) -> dict[str, float]:  # fmt: skip
    """The task's metrics over a whole data set, each process judging its share of the images."""
    meter = task.meter(options, data)
    training = network.training
    network.eval()
    with torch.no_grad(), accelerator.autocast():
        for items in in_order(
            data, task.collate, batch=batch, process=accelerator.process_index,
            processes=accelerator.num_processes, workers=workers,
        ):  # fmt: skip
            items = send_to_device(items, accelerator.device)
            meter.update(task.predict(network, items), items)
    network.train(training)
    if accelerator.num_processes > 1:
        gathered = gather_object([meter])
        meter.merge([other for rank, other in enumerate(gathered) if rank != accelerator.process_index])
    values = meter.compute()
    return {name: float(values[name]) for name in task.metrics}


COSTS = ("flops", "latency", "peak_memory")


class Inference:
    """One call of a trained network on one batch, as harness.metrics measure a subject: no gradients, nothing kept."""

    needs_graph = False

    def __init__(self, network: nn.Module, task: Task, batch: Any, case: Case) -> None:
        self.network, self.task, self.batch, self.case = network.eval(), task, batch, case
        self.device = torch.device(case.device)

    def prepare(self) -> None:
        """Nothing: there is no graph."""

    def run(self, state: None = None) -> Tensor:
        """Predict. Returns the first tensor of the prediction."""
        with torch.no_grad():
            return _first(self.task.predict(self.network, self.batch))

    def call(self) -> Tensor:
        """The same."""
        return self.run()

    def clear(self) -> None:
        """Nothing: no gradient is kept."""

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @cached_property
    def trace(self) -> subjects.Trace:
        """What one call allocates and launches."""
        subject: Any = self
        return subjects.trace(subject)


def accuracies(values: Mapping[str, float], *, samples: int, note: str) -> Iterator[Reading]:
    """A reading a metric; one that the data cannot define (no small object, say) is `unsupported`.

    A share of independent images has a 95 % interval: Wilson's, for top1 and top5.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            yield Reading(metric=name, status="unsupported", note="not defined on these data")
        elif name.startswith("top"):
            low, high = proportion_interval(round(value * samples), samples)
            yield Reading(metric=name, value=value, ci_low=low, ci_high=high, samples=samples, note=note)
        else:
            yield Reading(metric=name, value=value, samples=samples, note=note)


def parameters(network: nn.Module) -> Reading:
    """How many numbers a network learns."""
    return Reading(metric="params", value=sum(p.numel() for p in network.parameters()), samples=1)


def cost(inference: Inference, *, budget_s: float, samples: dict[str, list[float]]) -> Iterator[Reading]:
    """FLOPs counted by dispatch, latency, and peak memory of one call, by the harness' own metrics.

    A model whose answer is not finite has no cost: errors stand in its place.
    """
    if not bool(torch.isfinite(inference.call()).all()):
        for name in COSTS:
            yield Reading(metric=name, status="error", note="the model's answer is not finite")
        return
    subject: Any = inference
    yield _counted(inference)
    yield next(iter(latency.measure(subject, {}, Settings(budget_s=budget_s, samples=samples))))
    yield from memory.measure(subject, {}, Settings())


def _counted(inference: Inference) -> Reading:
    subject: Any = inference
    case = inference.case
    if attentions.spec(case.attention).backend(case.backend).opaque:
        note = f"{case.label} is opaque to the dispatcher; judge the same weights with {case.attention}:reference"
        return Reading(metric="flops", status="unsupported", note=note)
    counted = flops.count(subject)
    if not counted:
        return Reading(metric="flops", status="error", note="0 FLOPs were counted")
    return Reading(metric="flops", value=counted, samples=1, note="counted by dispatch")


def _first(predictions: Any) -> Tensor:
    """The first tensor in whatever a model returns."""
    while not isinstance(predictions, Tensor):
        predictions = next(iter(predictions.values() if isinstance(predictions, Mapping) else predictions))
    return predictions

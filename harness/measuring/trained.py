"""What one call of a trained network costs: FLOPs, latency and peak memory, by the metrics of `harness run`.

for reading in cost(Inference(network, task, batch, case), budget_s=2.0, samples={}): ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

import attentions
from harness.measuring import subject as subjects
from harness.measuring.metrics import Settings, flops, latency, memory
from harness.store.record import Case, Reading
from harness.vision.task import Task

COSTS = ("flops", "latency", "peak_memory")


class Inference:
    """One call of a trained network on one batch, as the metrics measure a subject: no gradients, nothing kept."""

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

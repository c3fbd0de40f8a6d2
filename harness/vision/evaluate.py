"""How good a trained model is; what it costs is harness.measuring.trained's.

values = accuracy(task, options, network, data, batch=64, accelerator=Accelerator())   # {"top1": 0.93}
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from torch import nn

from harness.stats import proportion_interval
from harness.store.record import Reading
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

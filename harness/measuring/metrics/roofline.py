"""bytes_moved (MiB): the least a call must move; roofline_fraction (1): the least time it could take over its latency.

The least time is the larger of FLOPs over the measured matrix rate and bytes over the measured copy bandwidth of this
device, both measured once a run and kept in environment.json under `ceilings`. A latency that the device cannot reach
is an error (harness.measuring.floor).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.measuring.floor import rates, survive
from harness.measuring.metrics import Settings
from harness.measuring.metrics.flops import declared_flops
from harness.measuring.subject import Subject
from harness.store.record import Reading

PROVIDES = ("bytes_moved", "roofline_fraction")
NEEDS = ("latency",)
UPDATE = 5  # of AdamW, for each weight: both moments read and written, the weight written


def measure(subject: Subject, readings: dict[str, Reading], settings: Settings) -> Iterator[Reading]:
    """From the cost model and the ceilings. Raises WrongResult for a latency that cannot be."""
    moved, flops = minimal_bytes(subject), declared_flops(subject, executed=False)
    if moved is None or flops is None:
        note = "the variant declares no cost model"
        yield Reading(metric="bytes_moved", status="unsupported", note=note)
        yield Reading(metric="roofline_fraction", status="unsupported", note=note)
        return
    yield Reading(metric="bytes_moved", value=moved / 2**20, samples=1)
    if not all(rates(settings.ceilings, subject.case.dtype)):
        note = f"no measured ceilings for {subject.case.dtype} on {subject.case.device}"
        yield Reading(metric="roofline_fraction", status="unsupported", note=note)
        return
    latency = readings["latency"]
    remark = survive(subject, latency, moved=moved, flops=flops, ceilings=settings.ceilings)
    copy, product = rates(settings.ceilings, subject.case.dtype)
    by_bytes, by_flops = moved / copy / 1e6, flops / product / 1e9  # ms
    least = max(by_bytes, by_flops)
    note = f"bound by {'memory' if by_bytes > by_flops else 'arithmetic'}: least {least:.4g} ms{remark}"
    if latency.value and least > latency.value and by_bytes > by_flops:
        note += "; its data lie in the cache, which is quicker than memory"
    yield latency.per(least, metric="roofline_fraction", note=note)


def minimal_bytes(subject: Subject) -> int | None:
    """Inputs, parameters and results of one call, each once. A model's images have no gradient."""
    if subject.spec.model is None:
        return None
    if subject.case.scope == "core":
        return subject.spec.model(subject.work).bytes
    x, out = sum(t.numel() for t in subject.inputs), math.prod(subject.output_shape)
    known = x + out + sum(p.numel() for p in subject.module.parameters())
    found = (x if subject.inputs[0].requires_grad else 0) + sum(p.numel() for p in subject.module.parameters())
    elements = {"forward": known, "backward": known + found, "train": known + out + found}
    elements["step"] = elements["train"] + UPDATE * sum(p.numel() for p in subject.module.parameters())
    return elements[subject.case.phase] * subject.dtype.itemsize

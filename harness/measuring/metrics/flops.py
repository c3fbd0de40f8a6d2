"""flops (FLOP) of one call, and flops_rate (TFLOP/s) at its latency.

Matrix products and convolutions, a multiply-add counted as two. The variant's cost model gives the figure and
PyTorch's dispatcher is counted beside it; a disagreement, a silent zero included, is an error, not a number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attentions import matmuls
from attentions.counting import counted as seen
from harness.measuring.metrics import Settings
from harness.measuring.subject import Subject
from harness.store.record import Reading
from harness.vision import models

PROVIDES = ("flops", "flops_rate")
NEEDS = ("latency",)


def measure(subject: Subject, readings: dict[str, Reading], settings: Settings) -> Iterator[Reading]:
    """Declared and counted FLOPs, then the rate of the definition's FLOPs."""
    with subject.eager():  # what is inside a compiled graph no dispatcher sees
        counted = None if subject.backend.opaque else count(subject)
    declared = declared_flops(subject, executed=True)
    value, note = declared, ""
    if declared is None and counted is None:
        note = f"no cost model, and {subject.case.label} is opaque to the dispatcher; the same with "
        note += f"{subject.case.attention}:reference is counted"
        yield Reading(metric="flops", status="unsupported", note=note)
        yield Reading(metric="flops_rate", status="unsupported", note=note)
        return
    if declared is None:
        value, note = counted, "counted by dispatch; the variant declares no cost model"
    elif counted is None:
        note = "from the cost model; this backend is opaque to the dispatcher"
    elif counted != declared:
        note = f"the cost model says {declared} and the dispatcher counted {counted}"
        yield Reading(metric="flops", status="error", note=note)
        yield Reading(metric="flops_rate", status="error", note="flops is in error")
        return
    if not value:
        yield Reading(metric="flops", status="error", note="0 FLOPs were counted")
        yield Reading(metric="flops_rate", status="error", note="flops is in error")
        return
    yield Reading(metric="flops", value=int(value), samples=1, note=note)
    useful = declared_flops(subject, executed=False) or value
    yield readings["latency"].per(useful / 1e9, metric="flops_rate")  # FLOP per ms to TFLOP/s


def declared_flops(subject: Subject, *, executed: bool) -> int | None:
    """The cost model's FLOPs of one call: what this backend executes, or what the definition needs."""
    model, work, case = subject.spec.model, subject.work, subject.case
    if model is None or models.is_foreign(case.model_options.get("model", "")):
        return None
    own = subject.backend.flops if executed else None
    core = own(work) if own else model(work).flops
    if case.scope == "core":
        return core
    if case.scope == "model":
        architecture, resolution = models.of_case(case)
        shared = subject.spec.shares_query_key
        return architecture.flops(resolution, b=case.b, phase=case.phase, core=core, shared=shared)
    layer: Any = subject.module
    products = case.n * (layer.projection.weight.numel() + layer.output.weight.numel())
    if case.problem.kv_tokens:
        products += case.key_tokens * layer.context_projection.weight.numel()
    return core + matmuls(work, 2 * case.b * products)


def count(subject: Subject) -> int:
    """FLOPs that the dispatcher sees in one call; only the backward pass of phase `backward`."""
    state = subject.prepare()
    return seen(lambda: subject.run(state))

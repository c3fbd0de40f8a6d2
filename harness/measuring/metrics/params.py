"""params (1): parameters of what is measured: the variant's own, with the projections, or the whole model's."""

from __future__ import annotations

from collections.abc import Iterator

from harness.measuring.metrics import Settings
from harness.measuring.subject import Subject
from harness.store.record import Reading

PROVIDES = ("params",)
NEEDS = ()


def measure(subject: Subject, readings: dict[str, Reading], settings: Settings) -> Iterator[Reading]:
    """Count every parameter once."""
    yield Reading(metric="params", value=sum(p.numel() for p in subject.module.parameters()), samples=1)

"""peak_memory (MiB): most bytes alive above the inputs during one call, outputs and gradients included.

A layer's or model's parameters are not counted: they are there before. CPU:
from the allocator's events, never RSS. CUDA: the caching allocator's peak. Deterministic for one torch build.
For `backward` the graph's activations count: they are alive while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.measuring.metrics import Settings
from harness.measuring.subject import Subject
from harness.store.record import Reading

PROVIDES = ("peak_memory",)
NEEDS = ("first_call",)


def measure(subject: Subject, readings: dict[str, Reading], settings: Settings) -> Iterator[Reading]:
    """One call under the allocator's eyes."""
    yield Reading(metric="peak_memory", value=subject.trace.peak_bytes / 2**20, samples=1)

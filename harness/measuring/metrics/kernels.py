"""kernels (1): kernels launched by one call on a GPU, innermost operators dispatched by one call on the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from harness.measuring.metrics import Settings
from harness.measuring.subject import Subject
from harness.store.record import Reading

PROVIDES = ("kernels",)
NEEDS = ("first_call",)


def measure(subject: Subject, readings: dict[str, Reading], settings: Settings) -> Iterator[Reading]:
    """Count from the same recorded call as peak_memory."""
    sequence = hashlib.sha256("\n".join(subject.trace.names).encode()).hexdigest()[:12]
    note = f"sequence={sequence}; output={subject.trace.output}"
    if (subject.backend.opaque or subject.case.is_on("compile")) and subject.device.type == "cpu":
        note += "; a compiled graph: the kernels inside it are not operators and are not counted"
    yield Reading(metric="kernels", value=subject.trace.launches, samples=1, note=note)

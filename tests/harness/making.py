"""Cases, readings and rows that nobody measured, for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.store.record import Case, Reading, Row

METRICS = ("latency", "flops")
CASE = Case(
    attention="full", backend="reference", scope="core", phase="forward", b=1, h=2, n=64, d=16, m=None,
    dtype="float32", device="cpu",
)  # fmt: skip


def case(**changes: Any) -> Case:
    """A case of `full` at n = 64 with some fields changed."""
    return Case(**{**{name: getattr(CASE, name) for name in Case.__dataclass_fields__}, **changes})


def row(of: Case, reading: Reading, *, machine: str = "here-2c-000000") -> Row:
    """The row of one reading."""
    return Row.of(of, reading, run_id="run", machine=machine, commit="c0ffee", time_utc="2026-01-01T00:00:00Z")


def rows(of: Case, *, note: str = "", value: float = 1.5, metrics: Sequence[str] = METRICS) -> list[Row]:
    """The rows of a case that was measured."""
    return [row(of, Reading(metric=name, value=value, samples=3, note=note)) for name in metrics]


def failed(of: Case, status: str = "oom", *, metric: str = METRICS[0], note: str = "too large") -> list[Row]:
    """The one row of a case that failed."""
    return [row(of, Reading(metric=metric, status=status, note=note))]

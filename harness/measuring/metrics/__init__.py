"""Metrics, one file each (or close family), found by file name.

A file defines PROVIDES, the names it yields; NEEDS, the names whose readings it uses (measured before it); and
`measure(subject, readings, settings)`, which yields a Reading for each name and may put raw samples into
`settings.samples`. Adding a metric is adding a file here and its unit in harness.store.record.UNITS.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

from harness.errors import UsageError, unknown
from harness.store.record import UNITS, Reading


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure: `budget_s` seconds of samples a case, at least `min_samples`, until the median's interval is
    within `precision` of it; `ceilings` is what this device can do (GB/s, TFLOP/s by dtype)."""

    budget_s: float = 2.0
    min_samples: int = 10
    precision: float = 0.01
    ceilings: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)


class Metric(Protocol):
    """What a file in this package offers."""

    PROVIDES: tuple[str, ...]
    NEEDS: tuple[str, ...]

    def measure(self, subject: Any, readings: dict[str, Reading], settings: Settings) -> Iterator[Reading]: ...


def plan(wanted: Sequence[str]) -> list[Metric]:
    """The files that provide `wanted` and what they need, each after those it needs. Raises UsageError for a name."""
    owners = {name: module for module in _files() for name in module.PROVIDES}
    for name in wanted:
        if name not in owners:
            raise UsageError(unknown("metric", name, [n for n in UNITS if n in owners]))
    order: list[Metric] = []

    def visit(name: str) -> None:
        module = owners[name]
        if module not in order:
            for needed in module.NEEDS:
                visit(needed)
            order.append(module)

    for name in wanted:
        visit(name)
    return order


@cache
def _files() -> tuple[Any, ...]:
    return tuple(
        importlib.import_module(f"{__name__}.{info.name}")
        for info in pkgutil.iter_modules(__path__)
        if not info.name.startswith("_")
    )

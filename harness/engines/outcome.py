"""What an engine tells of a case, and how it tells that its worker is gone. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.store.record import Reading


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one case: readings and raw samples, or one failed reading; seconds by metric.

    ceilings: the device's, where the case showed that those it was measured with were too low.
    """

    readings: list[Reading]
    samples: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    ceilings: dict[str, Any] | None = None

    @property
    def status(self) -> str:
        """ok where any figure is, else the first reading's."""
        return "ok" if any(reading.status == "ok" for reading in self.readings) else self.readings[0].status


class WorkerLost(RuntimeError):
    """The worker died or did not answer in time; `status` is the row's status."""

    def __init__(self, status: str, note: str) -> None:
        super().__init__(note)
        self.status, self.note = status, note

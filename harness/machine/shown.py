"""The best that a machine has shown: its quickest canaries, kept in a file of the user's cache. No torch.

    shown = Shown.open("AMD-EPYC-2c-3f9a1c", "cpu")       # equal names may be compared: they hang on the fingerprint
    shown.tell(4.2)
    shown.ms                                              # 4.2; None before the first look

Of the five quickest looks the median of those near the quickest: a freak look alone does not make every later one slow,
and looks beside a neighbour, however many, do not raise the best. Those of long ago are forgotten.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from harness.machine import cache

KEPT = 5
NEAR = 1.2  # times the quickest
FORGOTTEN_S = 30 * 86400.0


class Shown:
    """The quickest looks at a canary, [milliseconds, when] each; `path` None keeps them for this process alone."""

    def __init__(self, path: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self.path, self._clock = path, clock
        self.looks: list[tuple[float, float]] = _read(path) if path else []
        self._forget()

    @classmethod
    def open(cls, machine: str, device: str) -> Shown:
        """Those of a machine's device, by the names that its rows carry."""
        key = hashlib.sha256(f"{machine} {device}".encode()).hexdigest()[:16]
        return cls(cache.folder() / f"canary-{key}.json")

    @property
    def ms(self) -> float | None:
        """The median of the looks that are near the quickest; None before the first."""
        near = [look[0] for look in self.looks if look[0] <= NEAR * self.looks[0][0]]
        return statistics.median_low(near) if near else None

    def tell(self, milliseconds: float) -> None:
        """Take in a look, and keep it where it is among the quickest."""
        if not (math.isfinite(milliseconds) and milliseconds > 0):
            return
        before, self.looks = self.looks, sorted([*self.looks, (milliseconds, self._clock())])
        self._forget()
        if self.looks != before and self.path:
            with suppress(OSError):  # a read-only home costs the memory, not the run
                self.path.parent.mkdir(parents=True, exist_ok=True)
                partial = self.path.with_suffix(f".{os.getpid()}")
                partial.write_text(json.dumps(self.looks), encoding="utf-8")
                partial.replace(self.path)

    def _forget(self) -> None:
        now = self._clock()
        self.looks = [look for look in self.looks if now - look[1] < FORGOTTEN_S][:KEPT]


def _read(path: Path) -> list[tuple[float, float]]:
    """The looks that a file holds; none of a file that is missing or damaged, which the next look writes anew."""
    try:
        found = [(float(ms), float(when)) for ms, when in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, RecursionError):
        return []
    return sorted(look for look in found if all(map(math.isfinite, look)) and look[0] > 0)

"""The SM clock and what held it down, seen around each batch of samples. No torch.

clocks = Clocks(gpu)           # harness.machine.nvml.Gpu, or None where NVML cannot be asked
clocks.look()
clocks.notes()                 # ["SM at 1755 to 1980 MHz", "sampled under power limit (2 of 6 looks)"]
"""

from __future__ import annotations

import time
from collections import Counter

from harness.machine.nvml import CAPS, Beat, Gpu, throttle_names

APART_S = 0.02  # NVML takes its time, and shares the driver with what is timed


class Clocks:
    """Looks at a GPU's clock, and what they say together."""

    def __init__(self, gpu: Gpu | None) -> None:
        self.gpu = gpu
        self.beats: list[Beat] = []
        self._looked = -APART_S

    def look(self) -> None:
        """Ask once, unless it was just asked."""
        if self.gpu is not None and time.monotonic() - self._looked >= APART_S:
            self._looked = time.monotonic()
            self.beats.append(self.gpu.beat())

    def notes(self) -> list[str]:
        """The range of the clock, and under which caps of heat or power samples were taken; as far as it is known."""
        found = []
        speeds = [beat.sm_mhz for beat in self.beats if beat.sm_mhz is not None]
        if speeds:
            low, high = min(speeds), max(speeds)
            found.append(f"SM at {low} MHz" if low == high else f"SM at {low} to {high} MHz")
        masks = [beat.throttle_mask or 0 for beat in self.beats]
        caps = Counter(name for mask in masks for name in throttle_names(mask & CAPS))
        if caps:
            under = ", ".join(f"{name} ({count} of {len(masks)} looks)" for name, count in caps.items())
            found.append(f"sampled under {under}")
        return found

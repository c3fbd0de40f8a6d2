"""What the probes look at, and the kernel's counters around the trial."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.machine import system

if TYPE_CHECKING:
    from harness.machine.doctor._trial import Trial


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The kernel's counters at one moment; two of them enclose the trial."""

    seconds: float
    ticks: Mapping[str, int] = field(default_factory=dict)
    processes: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    own_seconds: float = 0.0
    throttled_us: int | None = None
    throttles: int | None = None
    swaps: int | None = None

    @classmethod
    def take(cls, root: Path, cores: frozenset[int]) -> Snapshot:
        """The counters now."""
        return cls(
            seconds=time.monotonic(), ticks=system.cpu_ticks(root), processes=system.process_ticks(root),
            own_seconds=time.process_time(), throttled_us=system.throttled_us(root),
            throttles=system.throttles(root, cores), swaps=system.swaps(root),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Place:
    """What the probes look at: the file system's root, the device, this process' threads, and what the trial showed."""

    root: Path
    device: str = "cpu"
    cores: frozenset[int] = frozenset({0})
    threads: int = 1
    environ: Mapping[str, str] = field(default_factory=dict)
    results: Path = Path("results")
    load: float | None = None
    before: Snapshot = Snapshot(seconds=0)
    after: Snapshot = Snapshot(seconds=0)
    trial: Trial | None = None
    no_trial: str = "no trial was made"
    torch_version: str = ""
    torch_cuda: str | None = None
    gpu: Mapping[str, Any] | None = None
    gpu_idle: Mapping[str, Any] = field(default_factory=dict)
    gpu_busy: tuple[Mapping[str, Any], ...] = ()
    no_gpu: str = "the device is cpu"

    @property
    def usable(self) -> float:
        """The cores that this process can keep busy: those of its affinity, cut by the quota."""
        return min(float(len(self.cores)), system.quota(self.root) or float("inf"))

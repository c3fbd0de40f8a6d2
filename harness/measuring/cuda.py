"""One CUDA device as harness.measuring.held sees it. Imports torch.

    device = CudaDevice.of(torch.device("cuda:0"))

The spin is torch.cuda._sleep: it is in every PyTorch, needs no compiler, takes one thread of one multiprocessor, and
ends by itself. Its unit is a clock cycle, whose length is measured once; where the clock is raised later it is shorter
than asked, which makes a sample void, not wrong.

Two events with nothing between them are 1.25 us apart on an H200: what recording takes is measured once as well, and
taken off every window.
"""

from __future__ import annotations

import statistics
import time
from functools import cache

import torch

from harness.machine.nvml import Gpu, NoGpu

CALIBRATION_CYCLES = 10_000_000
FEWEST_L2_BYTES = 1 << 20
EMPTY_WINDOWS, EMPTY_HOLD_NS = 21, 200_000


class CudaDevice:
    """The current stream of a device, its clock, and two buffers that flush its L2."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        size = max(torch.cuda.get_device_properties(device).L2_cache_size, FEWEST_L2_BYTES) // 4
        self._overwritten = torch.empty(size, device=device)
        self._read = torch.zeros(2 * size, device=device)  # twice, since an L2 may keep a copy in each of its halves
        self._sum = torch.empty((), device=device)
        self._cycles_per_ns = self._rate()
        self._empty_ms = self._empty()

    @staticmethod
    @cache
    def of(device: torch.device) -> CudaDevice:
        """The one of this process: its buffers and rate are made once."""
        return CudaDevice(device)

    def now(self) -> int:
        return time.perf_counter_ns()

    def hold(self, ns: float) -> None:
        with torch.cuda.device(self.device):
            torch.cuda._sleep(int(ns * self._cycles_per_ns))

    def flush(self) -> None:
        """Overwrite as much as the L2 holds, then read twice as much of something else: what was written is then
        written back, and a call that starts finds neither its inputs nor lines that it has to write for us."""
        self._overwritten.zero_()
        torch.sum(self._read, dim=0, out=self._sum)

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def passed(self, mark: torch.cuda.Event) -> bool:
        return mark.query()

    def between(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        return max(0.0, start.elapsed_time(end) - self._empty_ms)

    def synchronise(self) -> None:
        torch.cuda.synchronize(self.device)

    def _rate(self) -> float:
        """Clock cycles a ns, by the second of two long spins: the first may find the clock low."""
        with torch.cuda.device(self.device):
            for _ in range(2):
                start = self.mark()
                torch.cuda._sleep(CALIBRATION_CYCLES)
                end = self.mark()
                self.synchronise()
        return CALIBRATION_CYCLES / (1e6 * start.elapsed_time(end))

    def _empty(self) -> float:
        """Milliseconds between two events of a held stream that have nothing between them."""
        windows = []
        for _ in range(EMPTY_WINDOWS):
            self.hold(EMPTY_HOLD_NS)
            self.flush()
            start, end = self.mark(), self.mark()
            self.synchronise()
            windows.append(start.elapsed_time(end))
        return statistics.median(windows)


@cache
def gpu_of(device: torch.device) -> Gpu | None:
    """NVML's view of a device, open for as long as the process lives; None where NVML cannot be asked."""
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    try:
        return Gpu.open(uuid=str(uuid) if uuid else None, index=device.index or 0)
    except NoGpu:
        return None

"""The clock on a real device: relations between times, since no figure is known beforehand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@dataclass
class Plain:
    """A function as a call that has nothing to prepare."""

    function: Callable[[], Any]

    def prepare(self) -> None:
        return None

    def run(self, state: None) -> Any:
        return self.function()


def settled(function: Callable[[], Any]) -> Any:
    from harness.measuring.cuda import CudaDevice
    from harness.measuring.held import Stopwatch

    watch = Stopwatch(Plain(function), CudaDevice.of(torch.device("cuda:0")))
    watch.settle()
    return watch


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.ones(1 << 24, device="cuda")


def test_a_host_that_sleeps_is_no_time_of_the_device(x: torch.Tensor) -> None:
    watch = settled(lambda: (x.mul_(1), time.sleep(5e-3), x.mul_(1)))
    both = statistics.median(watch.sample(10))
    assert statistics.median(watch.host_ms) >= 5
    assert 0 < both < 2
    assert watch.wall == ""


def test_recording_the_events_is_no_time_of_the_call() -> None:
    nothing = settled(lambda: None)
    assert statistics.median(nothing.sample(20)) < 5e-4


def test_more_work_takes_longer_by_as_much(x: torch.Tensor) -> None:
    one, ten = settled(lambda: x.mul_(1)), settled(lambda: [x.mul_(1) for _ in range(10)])
    ratio = statistics.median(ten.sample(20)) / statistics.median(one.sample(20))
    assert 5 < ratio < 15


def test_a_call_that_synchronises_is_named(x: torch.Tensor) -> None:
    assert settled(lambda: x.sum().item()).wall.startswith("the call waits for the device")


@pytest.mark.parametrize("follows", [True, False])
def test_work_on_a_stream_that_nobody_waits_for_is_named(x: torch.Tensor, follows: bool) -> None:
    side = torch.cuda.Stream()

    def call() -> None:
        if follows:
            side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(20):
                x.mul_(1)

    assert settled(call).wall.endswith("on streams that its own does not wait for")


def test_work_on_a_stream_that_is_waited_for_is_the_devices_time(x: torch.Tensor) -> None:
    side = torch.cuda.Stream()

    def call() -> None:
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(20):
                x.mul_(1)
        torch.cuda.current_stream().wait_stream(side)

    joined, alone = settled(call), settled(lambda: [x.mul_(1) for _ in range(20)])
    assert joined.wall == ""
    assert 0.7 < statistics.median(joined.sample(20)) / statistics.median(alone.sample(20)) < 1.5


def test_a_flushed_call_finds_nothing_in_the_cache() -> None:
    """What fits the L2 twice over is read faster when it was just read: not here."""
    small = torch.ones(1 << 20, device="cuda")
    twice = settled(lambda: (small.sum(), small.sum()))
    once = settled(lambda: small.sum())
    assert statistics.median(twice.sample(30)) < 2 * statistics.median(once.sample(30))

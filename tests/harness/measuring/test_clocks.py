"""The clock beside the samples, from what a stand-in for NVML answers."""

from __future__ import annotations

from typing import Any

import pytest

from harness.machine.nvml import Beat, Gpu
from harness.measuring import clocks
from harness.measuring.clocks import Clocks


class Nvml:
    """Answers with the clocks and masks given, one a look; raises where there are none."""

    def __init__(self, *beats: tuple[int | None, int | None]) -> None:
        self.beats = iter(beats)
        self.mask: int | None = None

    def nvmlDeviceGetClockInfo(self, handle: Any, kind: int) -> int:
        assert kind == 1, "the SM's clock"
        mhz, self.mask = next(self.beats)
        if mhz is None:
            raise RuntimeError("Not Supported")
        return mhz

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int:
        if self.mask is None:
            raise RuntimeError("Not Supported")
        return self.mask


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "APART_S", 0.0)


def looked(*beats: tuple[int | None, int | None]) -> Clocks:
    found = Clocks(Gpu(Nvml(*beats), handle=None))
    for _ in beats:
        found.look()
    return found


def test_what_is_sampled_under_a_cap_is_marked() -> None:
    assert looked((1980, 0), (1755, 0x4), (1800, 0x4 | 0x40)).notes() == [
        "SM at 1755 to 1980 MHz", "sampled under power limit (2 of 3 looks), heat (hardware) (1 of 3 looks)",
    ]  # fmt: skip


def test_idle_and_chosen_clocks_are_no_caps() -> None:
    assert looked((1980, 0x1), (1980, 0x2)).notes() == ["SM at 1980 MHz"]


def test_a_driver_that_answers_nothing_leaves_no_note() -> None:
    assert looked((None, None)).notes() == []
    assert looked((None, 0x20)).notes() == ["sampled under heat (driver) (1 of 1 looks)"]
    nobody = Clocks(None)
    nobody.look()
    assert nobody.notes() == []


def test_nvml_is_not_asked_twice_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "APART_S", 3600.0)
    found = Clocks(Gpu(Nvml((1980, 0), (1, 0)), handle=None))
    found.look()
    found.look()
    assert found.beats == [Beat(sm_mhz=1980, throttle_mask=0)]

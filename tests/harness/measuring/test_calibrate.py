"""The canary's mean, and the GPU's half of a look, without a GPU."""

from __future__ import annotations

from typing import Any

import pytest

from harness.machine.nvml import NoGpu
from harness.machine.quiet import Gpu
from harness.measuring import calibrate


def test_the_canary_is_a_mean_that_a_time_slice_shows_in(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = iter([99.0, 4.0, 4.0, 48.0])
    clock = iter([0.0, 0.056])
    monkeypatch.setattr(calibrate, "canary_sample", lambda device: next(samples))
    monkeypatch.setattr(calibrate.time, "perf_counter", lambda: next(clock))
    assert calibrate.canary("cpu") == pytest.approx((4 + 4 + 48) / 3)  # the first is not counted, a median would be 4


def test_a_real_canary_is_some_milliseconds() -> None:
    assert 0.1 < calibrate.canary("cpu") < 10_000


class Device:
    """An open GPU as harness.machine.nvml has it."""

    def __init__(self, processes: list[int] | None) -> None:
        self.held = processes

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *failure: object) -> None: ...

    def now(self) -> dict[str, Any]:
        return {"sm_mhz": 1755, "throttle_mask": 0x40, "use_percent": 3}

    def processes(self) -> list[int] | None:
        return self.held


@pytest.mark.parametrize(("held", "count"), [([1, 2], 2), ([], 0), (None, None)])
def test_a_look_at_a_gpu(monkeypatch: pytest.MonkeyPatch, held: list[int] | None, count: int | None) -> None:
    monkeypatch.setattr(calibrate.environment, "open_gpu", lambda device: Device(held))
    assert calibrate.gpu("cuda:0") == Gpu(processes=count, sm_mhz=1755, throttle_mask=0x40)


def test_a_gpu_without_nvml_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def mute(device: str) -> Device:
        raise NoGpu("no bindings")

    monkeypatch.setattr(calibrate.environment, "open_gpu", mute)
    assert calibrate.gpu("cuda:0") is None

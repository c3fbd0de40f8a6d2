"""What a CudaDevice asks of torch.cuda, with a torch.cuda that only notes it: there is no GPU here."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.measuring.cuda import CALIBRATION_CYCLES, EMPTY_HOLD_NS, EMPTY_WINDOWS, CudaDevice
from harness.measuring.held import Stopwatch

L2_BYTES = 8 << 20
CYCLES_A_NS = 2.0


class Cuda:
    """Its spin lasts as long as its cycles say; everything else takes no time."""

    def __init__(self) -> None:
        self.now_ms, self.log = 0.0, []

    def sleep(self, cycles: int) -> None:
        assert isinstance(cycles, int)
        self.log.append(("sleep", cycles))
        self.now_ms += cycles / CYCLES_A_NS / 1e6

    def event(self, *, enable_timing: bool) -> Any:
        assert enable_timing
        own = SimpleNamespace(query=lambda: False)
        own.record = lambda stream: (self.log.append(("record", stream)), setattr(own, "at", self.now_ms))
        own.elapsed_time = lambda end: end.at - own.at
        return own


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    found = Cuda()
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(L2_cache_size=L2_BYTES))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: found.log.append(("synchronize", device)))
    monkeypatch.setattr(torch.cuda, "Event", found.event)
    monkeypatch.setattr(torch.cuda, "_sleep", found.sleep)
    return found


def test_a_spin_is_as_long_as_asked(cuda: Cuda) -> None:
    device = CudaDevice(torch.device("cpu"))
    spins = [entry for entry in cuda.log if entry[0] == "sleep"]
    empty = [("sleep", CYCLES_A_NS * EMPTY_HOLD_NS)] * EMPTY_WINDOWS
    assert spins == [("sleep", CALIBRATION_CYCLES)] * 2 + empty
    device.hold(1e6)
    assert cuda.log[-1] == ("sleep", CYCLES_A_NS * 1e6)


def test_the_flush_overwrites_the_whole_cache_and_reads_twice_as_much(cuda: Cuda) -> None:
    device = CudaDevice(torch.device("cpu"))
    assert device._overwritten.nbytes == L2_BYTES
    assert device._read.nbytes == 2 * L2_BYTES
    device._overwritten.fill_(3)
    device._read.fill_(1)
    device.flush()
    assert not device._overwritten.any()
    assert device._sum.item() == device._read.numel()


def test_a_sample_goes_through_the_devices_own_stream(cuda: Cuda) -> None:
    place = torch.device("cpu")
    device = CudaDevice(place)
    call = SimpleNamespace(prepare=lambda: None, run=lambda state: cuda.sleep(int(CYCLES_A_NS * 3e6)))
    watch = Stopwatch(call, device)
    cuda.log.clear()
    assert watch.sample(1) == [pytest.approx(3)]
    assert [name for name, _ in cuda.log] == ["synchronize", "sleep", "record", "sleep", "record", "synchronize"]
    assert {what for name, what in cuda.log if name == "record"} == {f"stream of {place}"}

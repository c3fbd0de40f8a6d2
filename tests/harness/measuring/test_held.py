"""Device time behind a spin, on a stand-in for a device: what becomes of host and device times needs no GPU to see."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

import pytest
from stand_in import OTHER, FakeCall, FakeDevice, stalls

from harness.measuring.clocks import Clocks
from harness.measuring.held import LATE, LATE_ONCE_SETTLED, LOOKS, HostIsLate, Stopwatch
from harness.measuring.metrics import Settings, latency

MS = 1_000_000
TIMES_NS = tuple(10.0**power for power in range(3, 10))  # 1 us to 1 s


def stopwatch(host_ns: float, device_ns: float, *, rate: float = 1.0, **more: Any) -> Stopwatch:
    device = FakeDevice(rate=rate)
    watch = Stopwatch(FakeCall(device, host_ns, device_ns, **more), device)
    watch.settle()
    return watch


@pytest.mark.parametrize(("host_ns", "device_ns"), list(itertools.product(TIMES_NS, TIMES_NS)))
@pytest.mark.parametrize("rate", [0.6, 1.0, 1.7], ids=["clock raised", "as asked", "clock fallen"])
def test_the_devices_time_comes_back_whatever_the_hosts_is(host_ns: float, device_ns: float, rate: float) -> None:
    watch = stopwatch(host_ns, device_ns, rate=rate)
    samples = watch.sample(5)
    assert watch.wall == ""
    assert statistics.median(samples) == pytest.approx(device_ns / MS, rel=0.01)
    assert statistics.median(watch.host_ms) == pytest.approx(host_ns / MS, rel=0.01)
    assert len(watch.host_ms) == len(samples) == 5


def test_events_without_a_spin_take_the_hosts_time_which_this_stand_in_shows() -> None:
    device = FakeDevice()
    call = FakeCall(device, host_ns=2 * MS, device_ns=0.1 * MS)
    state = call.prepare()
    start = device.mark()
    call.run(state)
    end = device.mark()
    device.synchronise()
    assert device.between(start, end) > 1.5


def test_the_order_of_one_sample() -> None:
    watch = stopwatch(0.1 * MS, 1 * MS)
    device: Any = watch.device
    device.log.clear()
    watch.sample(1)
    assert device.log == ["prepare", "synchronise", "hold", "flush", "mark", "run", "mark", "synchronise"]


def test_preparing_is_in_neither_time() -> None:
    watch = stopwatch(0.05 * MS, 0.2 * MS, preparing_ns=3 * MS)
    assert statistics.median(watch.sample(5)) == pytest.approx(0.2, rel=0.01)
    assert statistics.median(watch.host_ms) == pytest.approx(0.05, rel=0.01)


def test_the_spin_follows_what_enqueuing_takes() -> None:
    """It starts long after a slow start, and shrinks to what is needed; a call that becomes slower makes it grow."""
    watch = stopwatch(0.1 * MS, 0.05 * MS, stall=stalls(range(6), 5 * MS))
    assert watch.hold_ns > 4 * MS
    watch.sample(60)
    assert 0.15 * MS < watch.hold_ns < 0.5 * MS
    call: Any = watch.call
    call.host_ns = 2 * MS
    watch.host_ms.clear()
    samples = watch.sample(3)
    assert watch.void > 0
    assert samples == pytest.approx([0.05] * 3, rel=0.01)
    assert watch.host_ms == pytest.approx([2] * 3, rel=0.01)
    assert watch.hold_ns >= 3 * MS


def test_a_stall_of_the_host_makes_a_sample_void_not_wrong() -> None:
    watch = stopwatch(0.1 * MS, 0.3 * MS, stall=stalls(range(20, 60, 5), 40 * MS))
    samples = watch.sample(40)
    assert watch.void >= 1
    assert (min(samples), max(samples)) == pytest.approx((0.3, 0.3), rel=0.01)


@pytest.mark.parametrize("host_ns", [0.02 * MS, 3 * MS, 200 * MS])
@pytest.mark.parametrize("device_ns", [0.01 * MS, 5 * MS, 500 * MS])
def test_a_call_that_synchronises_is_found_and_timed_by_the_wall(host_ns: float, device_ns: float) -> None:
    watch = stopwatch(host_ns, device_ns, waits=True)
    assert watch.wall.startswith("the call waits for the device (held for ")
    expected = max(host_ns + device_ns / 4, host_ns / 4 + device_ns)  # the last or the first of four launches
    assert statistics.median(watch.sample(3)) == pytest.approx(expected / MS, rel=0.05, abs=0.01)
    assert watch.host_ms == []


def test_more_launches_than_the_queue_takes_outlast_the_spin_as_well() -> None:
    watch = stopwatch(6 * MS, 9 * MS, launches=3000)
    assert watch.wall.startswith("the call waits for the device")
    assert statistics.median(watch.sample(3)) == pytest.approx(9, rel=0.05)


def test_finding_a_slow_call_that_waits_takes_a_few_calls() -> None:
    device = FakeDevice()
    call = FakeCall(device, 0.1 * MS, 1000 * MS, waits=True)
    Stopwatch(call, device).settle()
    assert call.made <= 5


@pytest.mark.parametrize("follows", [True, False], ids=["after the start", "beside the spin"])
@pytest.mark.parametrize("device_ns", [0.2 * MS, 30 * MS])
def test_work_on_another_stream_is_waited_for_and_named(follows: bool, device_ns: float) -> None:
    watch = stopwatch(0.05 * MS, device_ns, stream=OTHER, follows=follows)
    assert watch.wall.endswith("ms of the call run on streams that its own does not wait for")
    assert statistics.median(watch.sample(3)) >= device_ns / MS


def test_a_failure_inside_is_told_and_leaves_no_work_behind() -> None:
    device = FakeDevice()
    watch = Stopwatch(FakeCall(device, 0.1 * MS, 1 * MS, fails_at=25), device)
    watch.settle()
    with pytest.raises(RuntimeError, match="out of memory, says the call"):
        watch.sample(100)
    assert device.free() <= device.clock


def test_a_host_in_trouble_gives_up_in_the_end() -> None:
    watch = stopwatch(0.1 * MS, 0.3 * MS)
    call: Any = watch.call
    call.stall = lambda number: 1.7 ** (call.made) * MS
    with pytest.raises(HostIsLate, match="times in a row"):
        watch.sample(1)
    assert watch.void <= LATE_ONCE_SETTLED


def device_watch(host_ns: float, device_ns: float, **more: Any) -> latency.DeviceWatch:
    device = FakeDevice()
    return latency.DeviceWatch(FakeCall(device, host_ns, device_ns, **more), device, Clocks(None))


def rows(watch: latency.Watch) -> dict[str, Any]:
    settings = Settings(budget_s=0.01)
    found = {r.metric: r for r in latency.readings_of(watch, settings, items=1000)}
    return found | {"samples": settings.samples}


def test_the_rows_of_a_call_that_the_host_cannot_feed() -> None:
    found = rows(device_watch(2 * MS, 0.5 * MS))
    assert found["latency"].value == pytest.approx(0.5, rel=0.01)
    assert found["host"].value == pytest.approx(2, rel=0.01)
    assert found["host"].ci_low <= found["host"].value <= found["host"].ci_high
    note = found["latency"].note
    assert note.startswith("device time; host-bound when called eagerly: the host takes 2 ms; stopped: ")
    assert len(found["samples"]["latency"]) == len(found["samples"]["host"]) == found["host"].samples
    assert found["throughput"].value == pytest.approx(1e6 / found["latency"].value)


def test_the_rows_of_a_call_that_the_device_takes_longer_for() -> None:
    found = rows(device_watch(0.5 * MS, 2 * MS))
    assert "host-bound" not in found["latency"].note
    assert (found["latency"].value, found["host"].value) == pytest.approx((2, 0.5), rel=0.01)


def test_the_rows_of_a_call_that_waits_name_the_wall_clock() -> None:
    found = rows(device_watch(0.1 * MS, 1 * MS, waits=True))
    assert found["latency"].note.startswith("wall clock: the call waits for the device")
    assert found["latency"].value > 1
    assert (found["host"].status, found["host"].value) == ("unsupported", None)
    assert found["host"].note.startswith("not apart from the device's time: the call waits")
    assert "host" not in found["samples"]


def test_a_host_that_falls_behind_midway_starts_again_by_the_wall_clock() -> None:
    watch = device_watch(0.1 * MS, 1 * MS)
    call: Any = watch.stopwatch.call
    settled = call.made
    call.stall = lambda number: 10 * MS * 1.7 ** (number - settled) if number < settled + LATE_ONCE_SETTLED else 0.0
    found = rows(watch)
    assert found["latency"].note.startswith("wall clock: the host fell behind (held for ")


def test_two_in_turns_use_one_method() -> None:
    held, waits = device_watch(2 * MS, 0.5 * MS), device_watch(0.1 * MS, 1 * MS, waits=True)
    first, second = latency.watched_in_turns(held, waits, budget_s=0.001)
    assert statistics.median(first) > 2  # the host's time, as the other's includes it
    assert statistics.median(second) > 1
    assert held.stopwatch.wall == waits.stopwatch.wall


def test_settling_is_cheap_for_a_call_that_takes_long_on_the_device() -> None:
    device = FakeDevice()
    call = FakeCall(device, 0.1 * MS, 1000 * MS)
    Stopwatch(call, device).settle()
    assert call.made <= 4
    assert max(device.holds) < 1 * MS
    assert LOOKS <= LATE

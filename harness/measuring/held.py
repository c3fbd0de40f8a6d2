"""A call's time on a device that works behind its host: the device's own, never the host's. No torch.

    stopwatch = Stopwatch(subject, CudaDevice(subject.device))
    stopwatch.settle()                  # how long the host takes, and whether the device can be held meanwhile
    stopwatch.sample(10)                # milliseconds; those of the host gather in stopwatch.host_ms

One sample: a spin holds the stream, and behind it the host enqueues the flush of the L2, the start event, the call and
the end event. If the device has not reached the start event when the end event is enqueued, it then runs from one to
the other without ever waiting for the host, and the time between them is its own. If it has, the sample is void: it is
thrown away and taken again behind a longer spin. So a spin of the wrong length costs time, never a wrong figure.

Two kinds of call cannot be timed so and get the wall clock, with the reason in their row:
- one that waits for the device (it synchronises, or enqueues more than the stream's queue takes): it outlasts any spin.
  The spin is timed and not ended by the host, or such a call would wait for ever;
- one with work on streams that the two events do not enclose: unheld it takes longer, device waited for as a whole,
  than the host and the device's own time together. What it takes beyond both ran elsewhere.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

WARM_UP_CALLS, WARM_UP_S = 3, 0.5
LOOKS, LOOK_S = 5, 0.2  # samples by which `settle` judges a call, fewer where they take longer
HEADROOM, SHORTEST_HOLD_NS = 1.5, 50_000  # of the spin over what enqueuing took
GROWTH, EASE = 1.5, 0.9  # of the spin after a void sample; and after a good one, at most
# Void samples in a row, and what they may take together before two are enough. Once a call has been timed behind the
# spin it is known not to wait for the device: only a host in trouble is late then, and has more patience.
LATE, PATIENCE_NS = 6, 500_000_000
LATE_ONCE_SETTLED, PATIENCE_ONCE_SETTLED_NS = 30, 10_000_000_000
# Unaccounted time that must have passed on another stream: launching and waiting take up to 20 us by themselves, and
# a clock that rises between two samples changes a long call by some percent.
ELSEWHERE_NS, ELSEWHERE = 50_000, 0.1


class Call(Protocol):
    """What is timed: harness.measuring.subject.Subject, or the like."""

    def prepare(self) -> Any: ...
    def run(self, state: Any) -> Any: ...


class Device(Protocol):
    """A device that works behind its host, on one stream. Everything but `synchronise` only enqueues."""

    def now(self) -> int:
        """The host's clock, in ns."""
        ...

    def hold(self, ns: float) -> None:
        """Keep the stream busy for about so long."""
        ...

    def flush(self) -> None:
        """Leave nothing of use in the L2, and nothing that has yet to be written back."""
        ...

    def mark(self) -> Any:
        """An event at this place of the stream."""
        ...

    def passed(self, mark: Any) -> bool:
        """Whether the device has reached the event, without waiting for it."""
        ...

    def between(self, start: Any, end: Any) -> float:
        """Milliseconds from one event to the other, both passed."""
        ...

    def synchronise(self) -> None:
        """Wait for all streams of the device."""
        ...


class HostIsLate(RuntimeError):
    """The device got ahead of the host every time."""


class Stopwatch:
    """Takes samples of one call. `host_ms`: what enqueuing the call took in each sample kept; `void`: samples thrown
    away; `wall`: why the wall clock is used instead, or nothing."""

    def __init__(self, call: Call, device: Device) -> None:
        self.call, self.device = call, device
        self.host_ms: list[float] = []
        self.wall, self.void = "", 0
        self.hold_ns: float = SHORTEST_HOLD_NS
        self._settled = False

    def settle(self) -> None:
        """Warm up, find the length of the spin, and judge whether the call can be timed behind it."""
        self._warm_up()
        unheld = self._until_looked(self._unheld)
        host_ns = statistics.median(host for host, _ in unheld)
        self.hold_ns = _enough(host_ns + SHORTEST_HOLD_NS)
        try:
            looks = self._until_looked(self._held)
        except HostIsLate as late:
            self.use_wall_clock(f"the call waits for the device ({late})")
            return
        self._settled, self.void = True, 0
        own_ms = statistics.median(device for device, _ in looks)
        whole_ns = statistics.median(whole for _, whole in unheld)
        elsewhere = whole_ns - host_ns - 1e6 * own_ms
        if elsewhere > max(ELSEWHERE_NS, ELSEWHERE * whole_ns):
            self.use_wall_clock(f"{elsewhere / 1e6:.2g} ms of the call run on streams that its own does not wait for")

    def sample(self, count: int) -> list[float]:
        """So many samples in ms. Raises HostIsLate: then what was taken before is void as well."""
        if self.wall:
            return [self._unheld()[1] / 1e6 for _ in range(count)]
        pairs = [self._held() for _ in range(count)]
        self.host_ms += [host for _, host in pairs]
        return [device for device, _ in pairs]

    def use_wall_clock(self, why: str) -> None:
        """Time the call from the host from here on, the device waited for."""
        self.wall = why
        self.host_ms.clear()

    def _warm_up(self) -> None:
        began, calls = self.device.now(), 0
        while calls < WARM_UP_CALLS and (calls == 0 or self.device.now() - began < 1e9 * WARM_UP_S):
            self.call.run(self.call.prepare())
            self.device.synchronise()
            calls += 1

    def _until_looked(self, take: Callable[[], tuple[float, float]]) -> list[tuple[float, float]]:
        began, taken = self.device.now(), [take()]
        while len(taken) < LOOKS and self.device.now() - began < 1e9 * LOOK_S:
            taken.append(take())
        return taken

    def _unheld(self) -> tuple[float, float]:
        """What the call takes with nothing ahead of it, in ns: until it returns, and until the device is done."""
        state = self.call.prepare()
        self.device.flush()
        self.device.synchronise()
        began = self.device.now()
        self.call.run(state)
        returned = self.device.now()
        self.device.synchronise()
        return returned - began, self.device.now() - began

    def _held(self) -> tuple[float, float]:
        """One sample that is not void, in ms: the device's time and the host's."""
        device, late, spent = self.device, 0, 0
        most, patience = (LATE_ONCE_SETTLED, PATIENCE_ONCE_SETTLED_NS) if self._settled else (LATE, PATIENCE_NS)
        while True:
            state = self.call.prepare()
            device.synchronise()
            began = device.now()
            device.hold(self.hold_ns)
            device.flush()
            start = device.mark()
            called = device.now()
            try:
                out = self.call.run(state)
            except BaseException:
                with suppress(Exception):  # the call's own failure is what is told; a device past use raises as well
                    device.synchronise()
                raise
            returned = device.now()
            end = device.mark()
            ahead, enqueued = not device.passed(start), device.now() - began
            device.synchronise()
            del out, state  # not before: what they hold is given back outside of the window
            if ahead:
                self.hold_ns = max(EASE * self.hold_ns, _enough(enqueued))
                return device.between(start, end), (returned - called) / 1e6
            late, spent = late + 1, spent + device.now() - began
            self.void += 1
            if late >= most or (late > 1 and spent > patience):
                raise HostIsLate(f"held for {self.hold_ns / 1e6:.2g} ms it returned later still, {late} times in a row")
            self.hold_ns *= GROWTH


def _enough(enqueuing_ns: float) -> float:
    """How long to hold the stream for what took so long to enqueue."""
    return max(SHORTEST_HOLD_NS, HEADROOM * enqueuing_ns)

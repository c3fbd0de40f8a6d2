"""A device that is not here: a host's clock and streams with times of their own, and calls made of launches.

Host and device times are in ns. Enqueuing costs the host's time; what is enqueued starts once it is there and what was
before it on its stream is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

OWN, OTHER = 0, 1
QUEUE = 1024  # launches that a stream takes ahead of the device
EVENT_NS, LAUNCH_NS, FLUSH_NS, WAIT_NS = 800, 3_000, 40_000, 2_000


class FakeDevice:
    """The stand-in. `rate`: how long its spin lasts of what was asked for; `log`: what was done, in order."""

    def __init__(self, *, rate: float = 1.0, queue: int = QUEUE) -> None:
        self.clock, self.rate, self.queue = 1_000_000.0, rate, queue
        self.ends: dict[int, list[float]] = {OWN: [], OTHER: []}
        self.log: list[str] = []
        self.holds: list[float] = []

    def free(self, stream: int = OWN) -> float:
        """When a stream is done with what it has."""
        return self.ends[stream][-1] if self.ends[stream] else 0.0

    def work(self, device_ns: float, *, host_ns: float, stream: int = OWN) -> None:
        """Spend the host's time on enqueuing, then have the stream work; wait first where its queue is full."""
        self.clock += host_ns
        ends = self.ends[stream]
        if len(ends) >= self.queue:
            self.clock = max(self.clock, ends[-self.queue])
        ends.append(max(self.free(stream), self.clock) + device_ns)
        del ends[: -self.queue]

    def now(self) -> int:
        return int(self.clock)

    def hold(self, ns: float) -> None:
        self.log.append("hold")
        self.holds.append(ns)
        self.work(ns * self.rate, host_ns=LAUNCH_NS)

    def flush(self) -> None:
        self.log.append("flush")
        self.work(FLUSH_NS, host_ns=2 * LAUNCH_NS)

    def mark(self) -> float:
        self.log.append("mark")
        self.work(0, host_ns=EVENT_NS)
        return self.free()

    def passed(self, mark: float) -> bool:
        return mark <= self.clock

    def between(self, start: float, end: float) -> float:
        assert max(start, end) <= self.clock, "asked before the device was there"
        return (end - start) / 1e6

    def synchronise(self) -> None:
        self.log.append("synchronise")
        self.clock = max(self.clock, *(self.free(stream) for stream in self.ends)) + WAIT_NS


@dataclass
class FakeCall:
    """`launches` of equal parts of the host's and the device's time.

    waits: it synchronises at its end; stream, follows: where it works, and whether that waits for the device's own
    stream; fails_at: the call, counted from 0, that raises midway; stall: extra host time of the call of that number.
    """

    device: FakeDevice
    host_ns: float
    device_ns: float
    launches: int = 4
    waits: bool = False
    stream: int = OWN
    follows: bool = True
    fails_at: int = -1
    stall: Callable[[int], float] = lambda number: 0.0
    preparing_ns: float = 0.0
    made: int = field(default=0, init=False)

    def prepare(self) -> str:
        self.device.log.append("prepare")
        if self.preparing_ns:
            self.device.work(self.preparing_ns, host_ns=LAUNCH_NS)
        return f"state {self.made}"

    def run(self, state: str) -> object:
        assert state == f"state {self.made}", "a sample without its own preparation"
        number, self.made = self.made, self.made + 1
        self.device.log.append("run")
        host_ns = self.host_ns + self.stall(number)
        for at in range(self.launches):
            if number == self.fails_at and at == self.launches // 2:
                raise RuntimeError("out of memory, says the call")
            if self.stream != OWN and self.follows:  # a stream that waits for an event of the device's own
                self.device.ends[self.stream].append(max(self.device.free(self.stream), self.device.free()))
            self.device.work(
                self.device_ns / self.launches, host_ns=host_ns / self.launches, stream=self.stream
            )  # fmt: skip
        if self.waits:
            self.device.synchronise()
        return object()


def stalls(numbers: Iterable[int], ns: float) -> Callable[[int], float]:
    """Extra host time for the calls of these numbers."""
    chosen = set(numbers)
    return lambda number: ns if number in chosen else 0.0

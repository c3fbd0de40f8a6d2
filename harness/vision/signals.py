"""A request to end that is heard at the end of a step, so that a checkpoint can be written first.

with stop_on_signals() as stop:
    while not stop.asked: step()
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass
class Stop:
    """Whether a signal has come, and its name."""

    asked: bool = False
    name: str = ""


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """SIGTERM, SIGINT and SIGHUP set `asked`; the second of them interrupts at once. Only the main thread can hear."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def hear(number: int, frame: object) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked, stop.name = True, signal.Signals(number).name

    before = {each: signal.getsignal(each) for each in HEARD}
    for each, handler in before.items():
        if handler != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(each, hear)
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)

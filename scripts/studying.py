"""The models of a study trained one after the other or two at a time, and handed over as they are done.

for trial, result in as_trained(todo, train, jobs=2, minutes=30): ...
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice, takewhile
from multiprocessing import get_context
from typing import TypeVar

from harness.machine import parent

Todo, Result = TypeVar("Todo"), TypeVar("Result")


def as_trained(
    todo: Sequence[Todo], train: Callable[[Todo], Result], *, jobs: int = 1, minutes: float = float("inf")
) -> Iterator[tuple[Todo, Result]]:
    """Each with what `train` returns of it; none is begun after `minutes`. More than one job: each in a process, which
    ends with this one."""
    started = time.monotonic()
    allowed = takewhile(lambda _: time.monotonic() - started < 60 * minutes, todo)
    if jobs == 1:
        yield from ((one, train(one)) for one in allowed)
        return
    running: dict[Future[Result], Todo] = {}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=parent.die_with) as pool:
        while True:
            for one in islice(allowed, jobs - len(running)):
                running[pool.submit(train, one)] = one
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()

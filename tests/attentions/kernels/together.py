"""Triton's interpreter with all programs of a grid at once, for kernels whose programs wait for each other.

    monkeypatch.setattr(interpreter, "GridExecutor", together(monkeypatch, seed=0))

A thread a program, of which one runs at a time; before every atomic operation the turn goes to one drawn by lot. That
shows what order of programs can do wrong, down to sums that are overwritten too early; not what a device's memory may
reorder. Programs that wait for ever are found: after MOST_TURNS the launch raises.
"""

from __future__ import annotations

import inspect
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from triton.runtime import interpreter

MOST_TURNS = 200_000


class Abandoned(BaseException):
    """Ends the other threads of a launch that failed."""


class Turns:
    """Who runs."""

    def __init__(self, seed: int) -> None:
        self.source, self.alive = random.Random(seed), list[int]()
        self.gates: list[threading.Semaphore] = []
        self.failure: BaseException | None = None
        self.current, self.taken = 0, 0

    def run(self, work: Callable[[], None], programs: int) -> None:
        """Do `work` once for each program, as that program."""
        self.alive, self.taken, self.failure = list(range(programs)), 0, None
        self.gates = [threading.Semaphore(0) for _ in range(programs)]
        threads = [threading.Thread(target=self._live, args=(i, work), daemon=True) for i in range(programs)]
        for thread in threads:
            thread.start()
        self._give(self.source.choice(self.alive))
        for thread in threads:
            thread.join()
        if self.failure:
            raise self.failure

    def pass_on(self) -> None:
        """Give the turn to somebody and go on when it comes back; nothing outside of `run`."""
        if not self.alive:
            return
        me, self.taken = self.current, self.taken + 1
        if self.taken > MOST_TURNS:
            raise RuntimeError(f"programs {self.alive} wait for each other")
        chosen = self.source.choice(self.alive)
        if chosen != me:
            self._give(chosen)
            self._take(me)

    def _live(self, me: int, work: Callable[[], None]) -> None:
        try:
            self._take(me)
            work()
        except Abandoned:
            return
        except BaseException as error:
            self.failure = error
        self.alive.remove(me)
        if self.failure:
            for gate in self.gates:
                gate.release()
        elif self.alive:
            self._give(self.source.choice(self.alive))

    def _give(self, other: int) -> None:
        self.current = other
        self.gates[other].release()

    def _take(self, me: int) -> None:
        self.gates[me].acquire()
        if self.failure:
            raise Abandoned
        interpreter.interpreter_builder.set_grid_idx(me, 0, 0)


class Programs:
    """A kernel's function that, called as one program, runs all of them."""

    def __init__(self, function: Any, programs: int, turns: Turns) -> None:
        self.function, self.programs, self.turns = function, programs, turns
        self.__globals__, self.__name__ = function.__globals__, function.__name__
        self.__signature__ = inspect.signature(function)

    def __call__(self, **arguments: Any) -> None:
        interpreter.interpreter_builder.set_grid_dim(self.programs, 1, 1)
        self.turns.run(lambda: self.function(**arguments), self.programs)


def together(monkeypatch: pytest.MonkeyPatch, *, seed: int) -> type[interpreter.GridExecutor]:
    """What stands in for the interpreter's GridExecutor; atomics are patched here."""
    turns = Turns(seed)
    atomic = interpreter.interpreter_builder.create_atomic_rmw

    def contended(*operands: Any) -> Any:
        turns.pass_on()
        return atomic(*operands)

    monkeypatch.setattr(interpreter.interpreter_builder, "create_atomic_rmw", contended)

    class Together(interpreter.GridExecutor):
        def __init__(self, fn: Any, arg_names: Any, grid: tuple[int], *rest: Any) -> None:
            super().__init__(fn, arg_names, (1,), *rest)
            self.fn = Programs(fn, grid[0], turns)

    return Together

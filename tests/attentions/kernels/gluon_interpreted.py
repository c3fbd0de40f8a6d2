"""A Gluon kernel's own source on the CPU, with all programs and roles at once: values, and what order can do wrong.

    Interpreter(kernel, seed=0).run(programs, arguments)

A thread a role of each program; one runs at a time, and at every operation on memory the turn goes to one drawn by lot
among those that can go on. Copies by tensor maps are made at a turn of their own, products are formed when they are
waited for, memory that a copy is to fill is NaN before. Where nobody can go on, `Deadlock` says who waits for what.

A role's warps are one thread here, so their order among themselves is a rule instead: `Disorder`, where a role hands on
or overwrites what not all its warps are done with, for want of a barrier, or gives the asynchronous proxy (tensor
cores, tensor maps) what it stored, for want of a fence and a barrier. Layouts mean nothing; memory is never reordered.
"""

from __future__ import annotations

import inspect
import random
import re
import textwrap
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from gluon_language import Disorder, Pointer, language
from torch import Tensor
from triton.language import constexpr
from triton.runtime import JITFunction
from triton.runtime.interpreter import InterpretedFunction

from attentions.kernels.anchor.plan import Launch, Memory


class Deadlock(Exception):
    """Nobody can go on."""


class Abandoned(BaseException):
    """Ends the other threads of a run that failed."""


@dataclass
class Role:
    """A function of a program that runs beside others.

    apart: what it did since its last barrier that not all its warps may be done with; read: from shared memory;
    unfenced, unjoined: what it stored there with no fence since, with no barrier since the fence.
    """

    name: str
    program: int
    warps: int
    work: Callable[[], None]
    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    can: Callable[[], bool] = lambda: True
    waits_for: str = ""
    apart: str = ""
    read: set[str] = field(default_factory=set)
    unfenced: set[str] = field(default_factory=set)
    unjoined: set[str] = field(default_factory=set)
    stores: int = 0
    polled: tuple[int, int] | None = None


class Interpreter:
    """Runs a kernel once. planted: texts of its source, lines with | between, and what stands in their place."""

    def __init__(self, kernel: Any, *, seed: int, planted: Mapping[str, str] | None = None) -> None:
        self.source, self.planted, self.used = random.Random(seed), dict(planted or {}), set[str]()
        self.roles: list[Role] = []
        self.alive: list[Role] = []
        self.copies: list[Callable[[], None]] = []
        self.failure: BaseException | None = None
        self.allocated = 0
        self.me = Role("start", 0, 8, lambda: None)
        self.functions: dict[str, Any] = {}
        self.language = language(self)
        self.kernel = self._rebuilt(kernel)
        if missing := self.planted.keys() - self.used:
            raise KeyError(f"the source has no {', '.join(missing)}")

    def run(self, programs: int, arguments: Mapping[str, Any]) -> None:
        """All programs, to the end of the last copy."""
        for program in range(programs):
            self.me = Role("start", program, 8, lambda: None)
            self.kernel(**arguments)
        if not self.roles:
            return
        self.alive = list(self.roles)
        threads = [threading.Thread(target=self._live, args=(role,), daemon=True) for role in self.roles]
        for thread in threads:
            thread.start()
        self._next(None)
        for thread in threads:
            thread.join()
        if self.failure:
            raise self.failure
        while self.copies:
            self.copies.pop()()

    def add_role(self, name: str, warps: int, work: Callable[[], None]) -> None:
        """Another role of the program that is begun."""
        self.roles.append(Role(name, self.me.program, warps, work))

    def pause(self, can: Callable[[], bool] = lambda: True, waits_for: str = "") -> None:
        """Give the turn to anybody who can go on; comes back when this role can, and is drawn."""
        if not self.alive:
            return
        me, me.can, me.waits_for = self.me, can, waits_for
        self._next(me)

    def expect_together(self, what: str) -> None:
        """All warps of this role are done with what it did before."""
        if self.me.apart:
            raise Disorder(f"{self.me.name}: no barrier between {self.me.apart} and {what}")

    def expect_visible(self, name: str, what: str) -> None:
        """What all warps of this role stored there is seen by the asynchronous proxy."""
        if name in self.me.unfenced | self.me.unjoined:
            raise Disorder(f"{self.me.name}: no fence and barrier between a store to {name} and {what}")

    def _next(self, me: Role | None) -> None:
        while True:
            able = [role for role in self.alive if role.can()]
            if not able and not self.copies:
                waits = ", ".join(f"{role.program} {role.name} for {role.waits_for}" for role in self.alive)
                raise Deadlock(waits)
            drawn = self.source.randrange(len(able) + len(self.copies))
            if drawn < len(able):
                break
            self.copies.pop(drawn - len(able))()
        self.me = able[drawn]
        if self.me is not me:
            self.me.gate.release()
            if me is not None:
                self._take(me)

    def _take(self, me: Role) -> None:
        me.gate.acquire()
        if self.failure:
            raise Abandoned

    def _live(self, me: Role) -> None:
        try:
            self._take(me)
            me.work()
            self.alive.remove(me)
            if self.alive:
                self._next(None)
        except Abandoned:
            return
        except BaseException as error:
            self.failure = error
            for role in self.roles:
                role.gate.release()

    def _rebuilt(self, function: Any) -> Any:
        """The Python function of a JIT function, in whose place everything that it names is this interpreter's."""
        plain = function.fn
        if plain.__qualname__ not in self.functions:
            text = textwrap.dedent(inspect.getsource(plain))
            text = text[text.index("def ") :]
            for old, new in self.planted.items():
                lines = r"\n *".join(re.escape(line) for line in old.split(" | "))
                if found := re.search(lines, text):
                    indent = "\n" + " " * (found.start() - text.rindex("\n", 0, found.start()) - 1)
                    text = text[: found.start()] + new.replace(" | ", indent) + text[found.end() :]
                    self.used.add(old)
            names: dict[str, Any] = {}
            for name in plain.__code__.co_names:
                found = plain.__globals__.get(name)
                if name in self.language:
                    names[name] = self.language[name]
                elif isinstance(found, JITFunction | InterpretedFunction):
                    names[name] = self._rebuilt(found)
                elif isinstance(found, constexpr):
                    names[name] = found.value
            exec(compile(f"from __future__ import annotations\n{text}", f"<{plain.__qualname__}>", "exec"), names)
            self.functions[plain.__qualname__] = names[plain.__name__]
        return self.functions[plain.__qualname__]


def arguments(launch: Launch, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a launch gives its kernel, as `run` takes it."""

    def given(value: Any) -> Any:
        if isinstance(value, Memory):
            flat = value.of(tensors)
            size = flat.untyped_storage().nbytes() // flat.itemsize - flat.storage_offset()
            return Pointer(torch.as_strided(flat, (size,), (1,), flat.storage_offset()))
        if isinstance(value, tuple):
            return tuple(map(given, value))
        return value.value if isinstance(value, constexpr) else value

    return {name: given(value) for name, value in (launch.arguments | launch.constants).items()}


def outcome(run: Callable[[], list[Tensor]], right: list[Tensor]) -> str:
    """What a run with an error in it comes to: Deadlock, Disorder, other values than the right ones, or nothing."""
    try:
        values = run()
    except (Deadlock, Disorder) as failure:
        return type(failure).__name__
    return "" if all(torch.equal(one, other) for one, other in zip(values, right, strict=True)) else "values"

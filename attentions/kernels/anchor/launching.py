"""Launching what has run before: compiled kernels with their arguments at hand, in which only addresses change.

Triton's own launcher binds every argument by name, specialises it, makes a key of all, looks the kernel up and calls
its hooks, at every launch. `prepare` lets it do so once, watches what it passes to the compiled kernel, and through it
to the function in C that enqueues, and keeps that: the grid, the loaded function, every number and constant.
`Prepared.launch` calls the same function with the same arguments and other addresses.

What makes that right: kernels are specialised by the numbers, which a plan fixes, and by which addresses are multiples
of 16 bytes, which passes.py sees to for all. What was watched is compared with what the plan
says, so that another version of Triton, which launches otherwise, is an error when a plan is made, never a wrong
result; where only the way from the compiled kernel to C is another, the compiled kernel is called.
ATTENTIONS_LAUNCHER=triton leaves every launch to Triton; so does a launch hook (a profiler's), while it is set.

Thread safety: preparing takes a lock; what is prepared is never changed, and holds no device memory.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton import knobs
from triton.runtime import driver

from attentions.kernels.anchor.devices import INTERPRETED
from attentions.kernels.anchor.plan import WORKSPACE, Launch, Memory, Plan

DIRECT = not INTERPRETED and os.environ.get("ATTENTIONS_LAUNCHER") != "triton"
BEFORE_ARGUMENTS = 9  # grid (3), stream, function, packed metadata, launch metadata, hooks on entering and leaving

_LOCK = threading.RLock()
_RUNTIME = knobs.runtime

Place = tuple[int, int]  # of a plan's tensors, and bytes into it


class Call(NamedTuple):
    """One launch: run(programs, 1, 1, the stream, *before, and what the kernel is given: one by one, or in a tuple).

    That is the addresses of `places`, then `rest`.
    """

    run: Callable[..., None]
    programs: int
    before: tuple[Any, ...]
    places: tuple[Place, ...]
    rest: tuple[Any, ...]
    in_tuple: bool


class Prepared:
    """A plan's launches on one device, the one of number `index`."""

    __slots__ = ("current_device", "index", "inner", "launches", "stream_of")

    def __init__(self, calls: tuple[Call, ...], device: torch.device, tensors: int) -> None:
        active: Any = driver.active
        self.stream_of = active.get_current_stream
        self.current_device = torch._C._cuda_getDevice if device.type == "cuda" else active.get_current_device
        self.index = active.get_current_device() if device.index is None else device.index
        self.inner = tuple({place: None for call in calls for place in call.places if place[1]})
        at = {(tensor, 0): tensor for tensor in range(tensors)} | {x: tensors + i for i, x in enumerate(self.inner)}
        self.launches = tuple(
            (call.run, call.programs, call.before, itemgetter(*(at[place] for place in call.places)), call.rest,
             call.in_tuple)
            for call in calls
        )  # fmt: skip

    def launch(self, addresses: tuple[int, ...]) -> None:
        """Enqueue all of it on the current stream of the device, which is to be the current one.

        addresses: of the plan's tensors, then the workspace.
        """
        stream = self.stream_of(self.index)
        if self.inner:
            addresses += tuple([addresses[tensor] + offset for tensor, offset in self.inner])
        for run, programs, before, addresses_in, rest, in_tuple in self.launches:
            if in_tuple:
                run(programs, 1, 1, stream, *before, addresses_in(addresses) + rest)
            else:
                run(programs, 1, 1, stream, *before, *addresses_in(addresses), *rest)


def hooked() -> bool:
    """Whether somebody wants to hear of launches."""
    enter, leave = _RUNTIME.launch_enter_hook, _RUNTIME.launch_exit_hook
    return bool(getattr(enter, "calls", enter) or getattr(leave, "calls", leave))


def prepare(plan: Plan, given: Mapping[str, Tensor]) -> Prepared:
    """Run a plan once by Triton's own launcher, and keep what that passed.

    Raises: RuntimeError if Triton launches in a way that is not known here.
    """
    first = given[plan.tensors[0]]
    names = (*plan.tensors, WORKSPACE)
    with _LOCK, torch.cuda.device_of(first):
        workspace = plan.workspace(first.device)
        tensors = {**given, WORKSPACE: workspace}
        return Prepared(tuple(_watched(launch, tensors, names) for launch in plan.launches), first.device, len(names))


def _watched(launch: Launch, tensors: Mapping[str, Tensor], names: tuple[str, ...]) -> Call:
    """Launch once, and what Triton passed in doing so."""
    compiled = launch.compiled(tensors)
    launcher = compiled.run
    with _watching(compiled, "_run") as seen, _watching(launcher, "launch") as enqueued:
        again = launch.run(tensors)
    _expect(launch, again is compiled and len(seen) == 1, "launched the compiled kernel")
    before, bound = seen[0][:BEFORE_ARGUMENTS], seen[0][BEFORE_ARGUMENTS:]
    _expect(launch, before[:3] == (launch.programs, 1, 1), "passed the grid first")
    _expect(launch, before[4] == compiled.function, "passed the function after the stream")
    _expect(launch, before[5] == compiled.packed_metadata, "passed the packed metadata after the function")
    parameters = launch.kernel.arg_names
    _expect(launch, len(bound) == len(parameters), "passed every parameter")
    places = [launch.arguments[name] for name in parameters if isinstance(launch.arguments.get(name), Memory)]
    for memory, value in zip(places, bound, strict=False):
        address = tensors[memory.tensor].data_ptr() + memory.offset
        _expect(launch, isinstance(value, Tensor) and value.data_ptr() == address, "passed the addresses first")
    rest = tuple(bound[len(places) :])
    _expect(launch, not any(isinstance(x, Tensor) for x in rest), "passed numbers after the addresses")
    numbers = {**launch.arguments, **launch.constants}
    given = tuple(numbers[name] for name in parameters[len(places) :])
    _expect(launch, rest == given, "passed the numbers as they were given")
    at = tuple((names.index(memory.tensor), memory.offset) for memory in places)
    assert len(at) > 1, "of one place alone itemgetter gives no tuple"
    inside = _inside(launcher, before, bound, enqueued)
    if inside is None:
        return Call(launcher, launch.programs, (*before[4:6], None, None, None), at, rest, in_tuple=False)
    return Call(launcher.launch, launch.programs, inside[0], at, rest, in_tuple=inside[1])


def _inside(
    launcher: Any, before: tuple[Any, ...], bound: tuple[Any, ...], enqueued: list[tuple[Any, ...]]
) -> tuple[tuple[Any, ...], bool] | None:  # fmt: skip
    """What Triton's launcher passes to its function in C between the stream and the kernel's arguments, and whether
    those are one tuple. None where that is not all: with scratch memory, which it allocates at each launch, or if it
    passes otherwise than is known here."""
    unscratched = {getattr(launcher, f"{kind}_scratch_size", None) for kind in ("global", "profile")} == {0}
    if len(enqueued) != 1 or not unscratched or getattr(launcher, "gsan_enabled", False):
        return None
    passed = enqueued[0]
    in_tuple = isinstance(passed[-1], tuple) and _same(passed[-1], bound)
    head = passed[:-1] if in_tuple else passed[: -len(bound)]
    if not in_tuple and not _same(passed[len(head) :], bound):
        return None
    if head[:5] != before[:5] or any(isinstance(x, Tensor) for x in head):
        return None
    silent = before[6:]  # what a hook is told, and the hooks
    return tuple(None if any(x is told for told in silent) else x for x in head[4:]), in_tuple


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(x is y for x, y in zip(one, other, strict=True))


@contextmanager
def _watching(owner: Any, name: str) -> Iterator[list[tuple[Any, ...]]]:
    """What this thread calls a function with that an object has, meanwhile; nothing if it has none of that name."""
    function, seen, me = getattr(owner, name, None), [], threading.get_ident()
    if function is None:
        yield seen
        return

    def watch(*arguments: Any) -> Any:
        if threading.get_ident() == me:
            seen.append(arguments)
        return function(*arguments)

    setattr(owner, name, watch)
    try:
        yield seen
    finally:
        setattr(owner, name, function)


def _expect(launch: Launch, true: bool, what: str) -> None:
    if not true:
        raise RuntimeError(
            f"{launch.kernel.__name__}: expected that Triton {triton.__version__} {what}, and it did not; set "
            "ATTENTIONS_LAUNCHER=triton to leave launching to Triton, and report this"
        )

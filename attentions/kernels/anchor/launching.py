"""Launching what has run before: compiled kernels with their arguments at hand, in which only addresses change.

Triton's own launcher binds every argument by name, specialises it, makes a key of all, looks the kernel up and calls
its hooks, at every launch. `prepare` lets it do so once, watches what it passes to the compiled kernel, and keeps that:
the grid, the loaded function, every number and constant. `Prepared.launch` calls the same function with the same
arguments and other addresses.

What makes that right: kernels are specialised by the numbers, which a plan fixes, and by which addresses are multiples
of 16 bytes, which passes.py sees to for all. What was watched is compared with what the plan
says, so that another version of Triton, which launches otherwise, is an error when a plan is made, never a wrong
result. ATTENTIONS_LAUNCHER=triton leaves every launch to Triton; so does a launch hook (a profiler's), while it is set.

Thread safety: preparing takes a lock; what is prepared is never changed, and holds no device memory.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
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


class Call(NamedTuple):
    """One launch: of `run`, with addresses at `places` (tensor, offset in bytes) and then `rest`."""

    run: Callable[..., None]
    programs: int
    function: int
    metadata: Any
    places: tuple[tuple[int, int], ...]
    rest: tuple[Any, ...]


class Prepared:
    """A plan's launches on one device."""

    __slots__ = ("calls", "current_device", "index", "stream_of")

    def __init__(self, calls: tuple[Call, ...], device: torch.device) -> None:
        active: Any = driver.active
        self.calls, self.stream_of = calls, active.get_current_stream
        self.current_device = torch._C._cuda_getDevice if device.type == "cuda" else active.get_current_device
        self.index = active.get_current_device() if device.index is None else device.index

    def launch(self, addresses: Sequence[int]) -> None:
        """Enqueue all of it on the device's current stream; addresses: of the plan's tensors, then the workspace."""
        if self.current_device() != self.index:
            with torch.cuda.device(self.index):
                return self.launch(addresses)
        stream = self.stream_of(self.index)
        for run, programs, function, metadata, places, rest in self.calls:
            given = [addresses[tensor] + offset for tensor, offset in places]
            run(programs, 1, 1, stream, function, metadata, None, None, None, *given, *rest)
        return None


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
        return Prepared(tuple(_watched(launch, tensors, names) for launch in plan.launches), first.device)


def _watched(launch: Launch, tensors: Mapping[str, Tensor], names: tuple[str, ...]) -> Call:
    """Launch once, and what Triton passed in doing so."""
    compiled = launch.compiled(tensors)
    run, seen, me = compiled.run, [], threading.get_ident()

    def watch(*arguments: Any) -> None:
        if threading.get_ident() == me:
            seen.append(arguments)
        run(*arguments)

    compiled._run = watch
    try:
        again = launch.run(tensors)
    finally:
        compiled._run = run
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
    return Call(run, launch.programs, compiled.function, compiled.packed_metadata, at, rest)


def _expect(launch: Launch, true: bool, what: str) -> None:
    if not true:
        raise RuntimeError(
            f"{launch.kernel.__name__}: expected that Triton {triton.__version__} {what}, and it did not; set "
            "ATTENTIONS_LAUNCHER=triton to leave launching to Triton, and report this"
        )

"""A CUDA driver for Triton that launches nothing: host code runs as on a GPU, on a machine that has none.

Kernels are compiled for an H100 as ever and "loaded"; tensors lie on the CPU. Triton's own launchers run, and call
`Driver.launched` where they would enqueue in C.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import driver as nvidia
from triton.compiler.compiler import LazyDict
from triton.knobs import HookChain
from triton.runtime import JITFunction, driver
from triton.runtime._allocation import NullAllocator

from attentions.kernels.anchor import passes
from attentions.kernels.anchor.plan import Plan

BEFORE_ARGUMENTS = 13  # of the function in C where it does not take them as one tuple (Triton 3.6)
KERNELS = ("attentions.kernels.", "anchor_forms.")  # modules whose kernels remember what they were loaded by
NOTHING: Callable[..., Any] = "".format  # takes whatever it is given, in C


class Driver:
    """What Triton asks of a driver; what is C on a device enters no function of Python here either.

    launched: called in place of each launch with grid, stream, function, everything else that launchers pass, None
    three times for what hooks are told, and what the kernel is given.
    """

    launcher_cls = nvidia.CudaLauncher
    get_current_device = int
    get_current_stream = {0: 77}.get

    def __init__(self, *, silent: bool = False) -> None:
        self.launched: Callable[..., None] = NOTHING
        self.utils = SimpleNamespace(
            load_binary=lambda name, kernel, shared, device: (object(), 1234, 32, 0, 1024),
            unload_module=lambda module: None,
            get_device_properties=lambda device: {"max_shared_mem": 232448},
            build_signature_metadata=lambda signature: bytes(len(signature)),
            launch=NOTHING if silent else self.enqueue,
        )

    def enqueue(self, *arguments: Any) -> None:
        """Triton's function in C."""
        if isinstance(arguments[-1], tuple):
            before, given = arguments[:-1], arguments[-1]
        else:
            before, given = arguments[:BEFORE_ARGUMENTS], arguments[BEFORE_ARGUMENTS:]
        settled = tuple(x for x in before[5:] if not isinstance(x, LazyDict | HookChain | None))
        self.launched(*before[:5], settled, None, None, None, *given)

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


@contextmanager
def without_device(*, silent: bool = False) -> Iterator[Driver]:
    """Run with such a driver, and leave nothing of it behind. silent: launches enter no function of Python."""
    active, before = Driver(silent=silent), driver._active
    driver.set_active(active)
    _forget()
    try:
        with pytest.MonkeyPatch.context() as patch:
            # What launchers are made with: a description of their arguments (Triton 3.9), a compiled module (3.6).
            patch.setattr(nvidia, "PyKernelArg", lambda **described: described, raising=False)
            module = SimpleNamespace(launch=active.utils.launch)
            patch.setattr(nvidia, "compile_module_from_src", lambda *source, **named: module, raising=False)
            patch.setattr(nvidia, "library_dirs", list, raising=False)  # would look for libcuda
            yield active
    finally:
        _forget()
        driver._active = before  # reset_active() would look for a device


def launched(found: Plan, tensors: Mapping[str, Tensor]) -> tuple[list[int], list[Any], list[int]]:
    """Of a plan that runs without a device: programs and metadata of each launch, and bytes of each scratch memory."""
    programs: list[int] = []
    scratch: list[int] = []
    triton.set_allocator(lambda size, alignment, stream: scratch.append(size) or torch.empty(size, dtype=torch.int8))
    try:
        with without_device() as device:
            device.launched = lambda *given: programs.append(given[0])
            metadata = [kernel.metadata for kernel in found.run(dict(tensors))]
    finally:
        triton.set_allocator(NullAllocator())
    return programs, metadata, scratch


def entered(function: Callable[[], object]) -> tuple[int, int]:
    """Functions of Python, and of C, that a known call enters, the given one not counted."""
    count = {"call": -1, "c_call": -1}  # the function itself, and the end of counting

    def profile(frame: Any, event: str, argument: Any) -> None:
        if event in count:
            count[event] += 1

    for _ in range(3):
        function()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count["call"], count["c_call"]


def _forget() -> None:
    passes._known.clear()
    for name, module in [*sys.modules.items()]:
        if name.startswith(KERNELS):
            for kernel in vars(module).values():
                if isinstance(kernel, JITFunction):
                    kernel.device_caches.clear()

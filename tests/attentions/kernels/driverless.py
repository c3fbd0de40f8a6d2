"""A CUDA driver for Triton that launches nothing: host code runs as on a GPU, on a machine that has none.

Kernels are compiled for an H100 as ever and "loaded"; tensors lie on the CPU. `Driver.launched` is called in place of a
launch with everything that Triton's launcher would get.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from attentions.kernels.anchor import backward, blocked, passes, single, sums, whole


def nothing(*arguments: Any) -> None:
    """In place of a launch."""


class Driver:
    """What Triton asks of a driver."""

    def __init__(self) -> None:
        self.launched: Callable[..., None] = nothing
        self.utils = SimpleNamespace(
            load_binary=lambda name, kernel, shared, device: (object(), 1234, 32, 0, 1024),
            unload_module=lambda module: None,
            get_device_properties=lambda device: {"max_shared_mem": 232448},
        )

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        """What a compiled kernel calls; looked up once, when it is loaded."""
        return self.launch

    def launch(self, *arguments: Any) -> None:
        self.launched(*arguments)

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 77


@contextmanager
def without_device() -> Iterator[Driver]:
    """Run with such a driver, and leave nothing of it behind."""
    active, before = Driver(), driver._active
    driver.set_active(active)
    _forget()
    try:
        yield active
    finally:
        _forget()
        driver._active = before  # reset_active() would look for a device


def _forget() -> None:
    passes._known.clear()
    for module in (whole, backward, blocked, single, sums):
        for kernel in vars(module).values():
            if isinstance(kernel, JITFunction):
                kernel.device_caches.clear()

"""Parametrises tests over what the registry finds and what runs here, and measures what a call computes and allocates.

A test asks by the name of its argument. On the CPU `implementation` is every variant and backend that runs here,
`variant` every variant by its reference, `exact` every implementation of an exact variant. What only a GPU can show
runs there: `everywhere` is `implementation` and a GPU's own kernels; `on_device` those kernels alone; `eager` the
references, whose code the CPU's tests have gone through. What torch.compile builds has tests of its own (`compiled`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attentions
from attentions.counting import counted


@dataclass(frozen=True)
class Implementation:
    """One backend of one variant on one device."""

    name: str
    device: str = "cpu"

    @property
    def spec(self) -> attentions.Spec:
        return attentions.spec(self.name)

    @property
    def backend(self) -> attentions.Backend:
        return self.spec.backend(attentions.split(self.name)[1] or "reference")

    def sibling(self, backend: str) -> Implementation:
        """Another backend of the same variant, on the same device."""
        return Implementation(f"{self.spec.name}:{backend}", self.device)

    def build(
        self, /, h: int, n: int, d: int, m: int = 8, *, dtype: torch.dtype = torch.float32, **options: Any
    ) -> nn.Module:
        """The core with parameters that depend on its sizes alone, the same for every backend."""
        torch.manual_seed(0)
        core = attentions.build(self.name, heads=h, head_dim=d, tokens=n, anchors=m, **options)
        return core.to(self.device, dtype)

    def inputs(
        self, b: int, h: int, n: int, d: int, *, dtype: torch.dtype = torch.float32, kv_heads: int | None = None,
        kv_tokens: int | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """q, k and v: standard normal, the same for every implementation, with gradients."""
        source = torch.Generator().manual_seed(1)
        keys = (b, kv_heads or h, kv_tokens or n, d)
        drawn = (torch.randn(*shape, generator=source) for shape in ((b, h, n, d), keys, keys))
        return tuple(x.to(self.device, dtype).requires_grad_() for x in drawn)

    def refusal(
        self, /, b: int, h: int, n: int, d: int, m: int = 8, *, dtype: torch.dtype, phase: str = "train",
        problem: Mapping[str, Any] = MappingProxyType({}), **options: Any,
    ) -> str | None:  # fmt: skip
        """Why it declares that it cannot run this case, in its own words, or None."""
        if reason := self.spec.why_not(**problem):
            return reason
        work = attentions.Work(
            b=b, h=h, n=n, d=d, m=m, phase=phase, itemsize=dtype.itemsize, options=self.spec.parse_options(options),
            **problem,
        )  # fmt: skip
        return attentions.why_unavailable(self.name, device=self.device, dtype=dtype, work=work)

    def skip_unless_runs(self, /, *size: int, dtype: torch.dtype, phase: str = "train", **options: Any) -> None:
        """Skip the test where it refuses the case."""
        if reason := self.refusal(*size, dtype=dtype, phase=phase, **options):
            pytest.skip(f"{self.name} {reason}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Fill in what a test asks for, by name, from the registry."""
    for name, choose in CHOICES.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, [_parameter(x) for x in _running() if choose(x)])


def _is_compiled(x: Implementation) -> bool:
    return x.backend.name in COMPILED


def _is_device_code(x: Implementation) -> bool:
    """On a GPU: other code than the CPU's tests have gone through."""
    return x.device == "cuda" and x.backend.name != "reference" and not _is_compiled(x)


COMPILED = ("compile", "flex")  # by torch.compile, which takes ten seconds a shape
CHOICES: dict[str, Callable[[Implementation], bool]] = {
    "implementation": lambda x: x.device == "cpu" and not _is_compiled(x),
    "everywhere": lambda x: (x.device == "cpu" and not _is_compiled(x)) or _is_device_code(x),
    "on_device": _is_device_code,
    "eager": lambda x: x.device == "cuda" and x.backend.name == "reference",
    "compiled": _is_compiled,
    "exact": lambda x: x.device == "cpu" and not _is_compiled(x) and x.spec.exact,
    "variant": lambda x: x.device == "cpu" and x.backend.name == "reference",
}


@cache
def _running() -> tuple[Implementation, ...]:
    every = (
        Implementation(f"{name}:{backend.name}", device)
        for device in attentions.devices()
        for name in attentions.names()
        for backend in attentions.spec(name).backends
    )
    return tuple(x for x in every if attentions.why_unavailable(x.name, device=x.device) is None)


def _parameter(implementation: Implementation) -> Any:
    marks = [pytest.mark.gpu] if implementation.device == "cuda" else []
    return pytest.param(implementation, id=f"{implementation.name}-{implementation.device}", marks=marks)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """On tensors this small, threads that wait for each other cost six times what they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make() -> Callable[..., Implementation]:
    """An implementation by its name, for a test about one variant."""
    return Implementation


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that is allocated and not written holds NaN."""
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled


@pytest.fixture
def count_flops() -> Callable[[Callable[[], Any]], int]:
    """FLOPs that PyTorch's dispatcher sees in a call."""
    return counted


@pytest.fixture
def measure_peak() -> Callable[[Callable[[], Any]], int]:
    """Most bytes alive above what there was before a call on the CPU, from the allocator's events."""

    def measure(call: Callable[[], Any]) -> int:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as recorded:
            kept = call()
        events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
        alive = peak = 0
        for event in sorted(events, key=lambda e: e.start_ns()):
            alive += event.nbytes()
            peak = max(peak, alive)
        del kept
        return peak

    return measure

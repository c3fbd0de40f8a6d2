"""Parametrises tests over what the registry finds and what runs here, and measures what a call computes and allocates.

A test that takes `implementation` runs once for every variant, backend and device that run here; one that takes
`variant`, once for every variant (its reference backend); `exact`, once for every implementation of an exact variant.
Backends that torch.compile builds take ten seconds a shape and have tests of their own (`compiled`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
        self, h: int, n: int, d: int, m: int = 8, *, dtype: torch.dtype = torch.float32, **options: Any
    ) -> nn.Module:
        """The core with parameters that depend on its sizes alone, the same for every backend."""
        torch.manual_seed(0)
        core = attentions.build(self.name, heads=h, head_dim=d, tokens=n, anchors=m, **options)
        return core.to(self.device, dtype)

    def inputs(self, b: int, h: int, n: int, d: int, *, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        """q, k and v: standard normal, the same for every implementation, with gradients."""
        source = torch.Generator().manual_seed(1)
        drawn = (torch.randn(b, h, n, d, generator=source) for _ in range(3))
        return tuple(x.to(self.device, dtype).requires_grad_() for x in drawn)

    def skip_unless_runs(
        self, b: int, h: int, n: int, d: int, m: int = 8, *, dtype: torch.dtype, phase: str = "train", **options: Any
    ) -> None:
        """Skip the test, with the backend's own words, where it declares that it cannot run this case."""
        work = attentions.Work(
            b=b, h=h, n=n, d=d, m=m, phase=phase, itemsize=dtype.itemsize, options=self.spec.parse_options(options)
        )
        reason = attentions.why_unavailable(self.name, device=self.device, dtype=dtype, work=work)
        if reason:
            pytest.skip(f"{self.name} {reason}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Fill in `implementation`, `variant`, `exact` and `compiled` from the registry."""
    choices: dict[str, Callable[[], list[Implementation]]] = {
        "implementation": lambda: [x for x in _running() if not _compiled(x)],
        "compiled": lambda: [x for x in _running() if _compiled(x)],
        "exact": lambda: [x for x in _running() if not _compiled(x) and x.spec.exact],
        "variant": lambda: [x for x in _running() if x.backend.name == "reference" and x.device == "cpu"],
    }
    for name, choose in choices.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, [_parameter(x) for x in choose()])


def _running() -> list[Implementation]:
    every = (
        Implementation(f"{name}:{backend.name}", device)
        for device in attentions.devices()
        for name in attentions.names()
        for backend in attentions.spec(name).backends
    )
    return [x for x in every if attentions.why_unavailable(x.name, device=x.device) is None]


def _compiled(implementation: Implementation) -> bool:
    return implementation.backend.opaque and implementation.device == "cpu"


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

"""A case made runnable: the module, its inputs, and one call of its phase. Lives in the worker; imports torch.

subject = Subject(case)
state = subject.prepare()      # untimed: for `backward`, the forward pass that builds a fresh graph
subject.run(state)             # timed: one call of the phase, on inputs that no call before it had
subject.inputs                 # those of the latest call; the first set before any
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

import attentions
from harness.measuring.inputs import PLACES, Inputs, normal
from harness.store.record import Case


class Subject:
    """The module of a case with inputs drawn from the case's seed (harness.measuring.inputs)."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.spec = attentions.spec(case.attention)
        self.backend = self.spec.backend(case.backend)
        self.device = torch.device(case.device)
        self.dtype = getattr(torch, case.dtype)
        self.options = self.spec.parse_options(case.variant_options)
        self.work = work_of(case)
        torch.manual_seed(case.seed)
        self.module = self.build(case.label).to(self.device, self.dtype)
        shapes, self.output_shape = self._shapes()
        self.needs_graph = case.phase != "forward"
        self._pool = Inputs(
            shapes, dtype=self.dtype, device=self.device, seed=case.seed,
            gradients=self.needs_graph and case.scope != "model",  # nobody trains images
        )  # fmt: skip
        self.gradient = self._drawn_gradient(0)
        self._sets = self._pool.sets()
        self.inputs = self._pool.first

    def build(self, name: str) -> nn.Module:
        """The case's module with another backend, on the CPU in float32. Raises Failure where a package lacks."""
        case = self.case
        if case.scope == "model":
            from harness.vision import models, vit

            architecture, resolution = models.of_case(case)
            options = self.options if attentions.split(name)[0] == case.attention else {}
            m = case.m or models.ANCHORS
            return vit.create(architecture.name, attention=name, anchors=m, img_size=resolution, **options)
        sizes, problem = {"heads": case.h, "tokens": case.n, "anchors": case.m}, case.problem.keywords
        if case.scope == "layer":
            from attentions.layer import MultiHeadAttention

            return MultiHeadAttention(case.h * case.d, attention=name, **sizes, **problem, **self.options)
        return attentions.build(name, head_dim=case.d, **sizes, **problem, **self.options)

    def prepare(self) -> Tensor | None:
        """What a call needs and its time must not hold: cleared gradients and, for backward, a fresh graph."""
        if not self.needs_graph:
            return None
        self.clear()
        self.inputs = next(self._sets)
        return self.module(*self.inputs) if self.case.phase == "backward" else None

    def run(self, state: Tensor | None) -> Tensor:
        """One call of the phase. Returns the output."""
        if not self.needs_graph:
            self.inputs = next(self._sets)
            with torch.no_grad():
                return self.module(*self.inputs)
        out = self.module(*self.inputs) if state is None else state
        out.backward(self.gradient)
        return out

    def call(self) -> Tensor:
        """prepare and run."""
        return self.run(self.prepare())

    def clear(self) -> None:
        """Set every gradient to None, so that nothing accumulates."""
        for tensor in (*self.inputs, *self.module.parameters()):
            tensor.grad = None

    def rewind(self) -> None:
        """Go back to the first set of inputs: the next call has it too."""
        self.clear()
        self._sets, self.inputs = self._pool.sets(), self._pool.first

    def drawn(self, draw: int) -> list[Tensor]:
        """Values for `renew`: draw 0 are those that the subject began with."""
        return [*self._pool.drawn(draw), self._drawn_gradient(draw)]

    def renew(self, values: Sequence[Tensor]) -> None:
        """Other values below the addresses of every set and of the gradient; rewinds. Allocates nothing."""
        *inputs, gradient = values
        self._pool.fill(inputs)
        self.gradient.copy_(gradient)
        self.rewind()

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def reference(self, core: nn.Module | None = None) -> nn.Module:
        """The same module in float64 with the same parameters: its `reference` backend, or with `core` in its place."""
        whole = self.case.scope == "model"  # of exact attention: by blocks of keys, since n × n in float64 may not fit
        with torch.random.fork_rng(devices=[]):
            module = self.build(f"{'flash' if whole and self.spec.exact else self.case.attention}:reference")
        module.load_state_dict(self.module.state_dict())
        module = copy.deepcopy(module).to(self.device, torch.float64)
        if core is None:
            return module
        if self.case.scope == "core":
            return core
        module.core = core
        return module

    @cached_property
    def trace(self) -> Trace:
        """What one call allocates and launches, by PyTorch's profiler and allocator. The same in every run."""
        return trace(self)

    def _shapes(self) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
        """Of the inputs and of the output."""
        case = self.case
        if case.scope == "model":
            from harness.vision import models

            _, resolution = models.of_case(case)
            return [(case.b, models.CHANNELS, resolution, resolution)], (case.b, models.CLASSES)
        if case.scope == "layer":
            shape = (case.b, case.n, case.h * case.d)
            context = (case.b, case.key_tokens, case.h * case.d)
            return [shape, *([context] if case.problem.kv_tokens else [])], shape
        q, kv = (case.b, case.h, case.n, case.d), (case.b, case.key_heads, case.key_tokens, case.d)
        return [q, kv, kv], q

    def _drawn_gradient(self, draw: int) -> Tensor:
        shape = self.output_shape if self.needs_graph else (0,)
        return normal(shape, self.dtype, self.device, (self.case.seed, draw, len(PLACES)))


class Trace:
    """peak_bytes: most bytes alive above the inputs during one call; launches: kernels (GPU) or operators (CPU).

    names: of those, in order; output: the call's result, `1x6x1024x64 float32`.
    """

    def __init__(self, peak_bytes: int, launches: int, names: list[str], output: str) -> None:
        self.peak_bytes, self.launches, self.names, self.output = peak_bytes, launches, names, output


def work_of(case: Case) -> attentions.Work:
    """The case as the cost models read it."""
    spec = attentions.spec(case.attention)
    return attentions.Work(
        b=case.b, h=case.h, n=case.n, d=case.d, m=case.m, phase=case.phase,
        itemsize=getattr(torch, case.dtype).itemsize, options=spec.parse_options(case.variant_options),
        device=case.device.partition(":")[0], **case.problem.keywords,
    )  # fmt: skip


def trace(subject: Subject) -> Trace:
    """Run one call under the profiler.

    CPU: the running sum of the allocator's events, a backward's forward pass included, so activations count.
    CUDA: the caching allocator's peak over what was allocated before.
    """
    from torch.profiler import ProfilerActivity, profile

    cuda = subject.device.type == "cuda"
    subject.clear()
    gc.collect()
    if cuda:
        torch.cuda.reset_peak_memory_stats(subject.device)
        before = torch.cuda.memory_allocated(subject.device)
        _discard(subject.call)
        subject.synchronise()
        peak = torch.cuda.max_memory_allocated(subject.device) - before
        with profile(activities=[ProfilerActivity.CUDA]) as recorded:
            output = _described(subject.call())
            subject.synchronise()
        kernels = [e.name() for e in _events(recorded) if e.device_type().name == "CUDA"]
        names = [name for name in kernels if not name.startswith(("Memcpy", "Memset"))]
        return Trace(peak, len(names), names, output)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        out = subject.call()
    live = peak = 0
    for event in sorted((e for e in _events(recorded) if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    output = _described(out)
    del out
    names = [
        event.name for event in recorded.events() or []
        if event.name.startswith("aten::") and not any(c.name.startswith("aten::") for c in event.cpu_children)
    ]  # fmt: skip
    return Trace(peak, len(names), names, output)


def _events(recorded: Any) -> Any:
    return recorded.profiler.kineto_results.events()


def _described(out: Tensor) -> str:
    return f"{'x'.join(map(str, out.shape))} {str(out.dtype).removeprefix('torch.')}"


def _discard(call: Callable[[], Tensor]) -> None:
    call()

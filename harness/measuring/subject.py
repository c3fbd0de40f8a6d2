"""A case made runnable: the module, its inputs, and one call of its phase. Lives in the worker; imports torch.

subject = Subject(case)
state = subject.prepare()      # untimed: for `backward`, the forward pass that builds a fresh graph
subject.run(state)             # timed: one call of the phase, on inputs that no call before it had
subject.inputs                 # those of the latest call; the first set before any
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

import attentions
from attentions import Backend, plugins
from harness.machine.memory import free_bytes
from harness.measuring.inputs import PLACES, Inputs, normal
from harness.measuring.step import Step
from harness.store.record import Case
from harness.vision.models import AS_IS, OWN

COPIES = 6  # of an input in float64: q, k, v, what options make of k, the output and a product on its way
SHARE_OF_FREE = 0.8  # of the memory that is free, what a reference may take


class Subject:
    """The module of a case with inputs drawn from the case's seed (harness.measuring.inputs)."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.spec = spec_of(case)
        self.backend = self.spec.backend(case.backend)
        self.device = torch.device(case.device)
        self.dtype = getattr(torch, case.dtype)
        self.options = self.spec.parse_options(case.variant_options)
        self.work = work_of(case)
        torch.manual_seed(case.seed)
        self._amp = case.is_on("amp")  # known here: a call is timed
        held = torch.float32 if self._amp else self.dtype  # of weights and inputs
        self.module = self._placed(self.build(case.label), held)
        shapes, self.output_shape, vocabulary = self._shapes()
        self.needs_graph = case.phase != "forward"
        self._pool = Inputs(
            shapes, dtype=held, device=self.device, seed=case.seed, vocabulary=vocabulary,
            gradients=self.needs_graph and case.scope != "model",  # nobody trains images
        )  # fmt: skip
        self._compiled: Callable[..., Tensor] | None = torch.compile(self.module) if case.is_on("compile") else None
        self._step = Step(self.module, self.output_shape, case.seed) if case.phase == "step" else None
        self.gradient = self._drawn_gradient(0)
        self._sets = self._pool.sets()
        self.inputs = self._pool.first

    def build(self, name: str) -> nn.Module:
        """The case's module with another backend, on the CPU in float32. Raises Failure where a package lacks."""
        case = self.case
        if case.scope == "model":
            from harness.vision import foreign, models, vit

            if models.is_foreign(case.model_options["model"]):
                if case.attention == AS_IS:
                    return foreign.build(foreign.Asked.of(case, AS_IS, {}))
                options = self.options if attentions.split(name)[0] == case.attention else {}
                return foreign.build(foreign.Asked.of(case, name, options))
            architecture, resolution = models.of_case(case)
            options = self.options if attentions.split(name)[0] == case.attention else {}
            m = case.m or models.ANCHORS
            return vit.create(architecture.name, attention=name, anchors=m, img_size=resolution, **options)
        sizes, problem = {"heads": case.h, "tokens": case.n, "anchors": case.m}, case.problem.keywords
        if case.scope == "layer" and self.backend.layer is not None:
            return self.backend.layer(attentions.Size(head_dim=case.d, **sizes))
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
        return self.forward() if self.case.phase == "backward" else None

    def forward(self) -> Tensor:
        """The module on the current inputs: compiled and under autocast where the case says so."""
        call = self.module if self._compiled is None else self._compiled
        if not self._amp:
            return call(*self.inputs)
        with torch.autocast(self.device.type, self.dtype):
            return call(*self.inputs)

    @contextmanager
    def eager(self) -> Iterator[None]:
        """Not compiled for as long as it lasts: what is inside a graph no dispatcher sees."""
        compiled, self._compiled = self._compiled, None
        try:
            yield
        finally:
            self._compiled = compiled

    def run(self, state: Tensor | None) -> Tensor:
        """One call of the phase. Returns the output."""
        if not self.needs_graph:
            self.inputs = next(self._sets)
            with torch.no_grad():
                return self.forward()
        out = self.forward() if state is None else state
        if self._step is None:
            # under autocast the output has another dtype; elsewhere not even an operator that does nothing may be added
            out.backward(self.gradient if out.dtype == self.gradient.dtype else self.gradient.to(out.dtype))
        else:
            self._step.take(out)
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

    @cached_property
    def definition(self) -> str:
        """The backend that says in float64 what is right: the reference, unless it does not fit in the memory that is
        free and a frugal one computes the same."""
        if self.case.scope == "model" or self.backend.layer is not None or self.spec.exact or self.spec.model is None:
            return "reference"
        work = replace(self.work, b=1, itemsize=8, phase="train" if self.needs_graph else "forward")
        needed = self.spec.model(work).peak + COPIES * work.tokens * work.d * work.itemsize
        if needed <= SHARE_OF_FREE * free_bytes(str(self.device)):
            return "reference"
        where = (work, torch.float64, self.device)
        able = [each for each in self.spec.backends if each.frugal and each.limits(*where) is None]
        return able[0].name if able else "reference"

    def reference(self, core: nn.Module | None = None, *, backend: str = "reference") -> nn.Module:
        """The same module in float64 with the same parameters: by that backend, or with `core` in its place.

        A layer of the user's own is its own reference.
        """
        whole = self.case.scope == "model"  # of exact attention: by blocks of keys, since n × n in float64 may not fit
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.case.seed)  # what a layer draws and keeps out of its state is as it was
            module = self.build(f"{'flash' if whole and self.spec.exact else self.case.attention}:{backend}")
        module.load_state_dict(self.module.state_dict())
        module = self._placed(copy.deepcopy(module), torch.float64)
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

    def _placed(self, module: nn.Module, dtype: torch.dtype) -> nn.Module:
        """On the device, in a precision; models of others know which of their buffers keep their own."""
        cast: Callable[[torch.device, torch.dtype], nn.Module] | None = getattr(module, "cast", None)
        return module.to(self.device, dtype) if cast is None else cast(self.device, dtype)

    def _shapes(self) -> tuple[list[tuple[int, ...]], tuple[int, ...], int]:
        """Of the inputs and of the output, and how many token ids there are, 0 where inputs are no ids."""
        case = self.case
        if case.scope == "model":
            from harness.vision import foreign, models

            if models.is_foreign(case.model_options["model"]):
                asked = foreign.Asked.of(case, AS_IS, {})
                found = foreign.facts(asked)
                shape = (foreign.CHANNELS, asked.side, asked.side) if asked.side else (case.n,)
                return [(case.b, *shape)], (case.b, *found.out[1:]), found.vocabulary
            _, resolution = models.of_case(case)
            return [(case.b, models.CHANNELS, resolution, resolution)], (case.b, models.CLASSES), 0
        if case.scope == "layer":
            shape = (case.b, case.n, case.h * case.d)
            context = (case.b, case.key_tokens, case.h * case.d)
            return [shape, *([context] if case.problem.kv_tokens else [])], shape, 0
        q, kv = (case.b, case.h, case.n, case.d), (case.b, case.key_heads, case.key_tokens, case.d)
        return [q, kv, kv], q, 0

    def _drawn_gradient(self, draw: int) -> Tensor:
        shape = self.output_shape if self.needs_graph else (0,)
        return normal(shape, self.dtype, self.device, (self.case.seed, draw, len(PLACES)))


def _built_with_its_model(size: attentions.Size) -> nn.Module:
    raise attentions.AttentionError(f"the attention that a model of others has is built with it, not at {size}")


# What is known of attention that a model of others has: it is not ours, and costs what is counted.
UNKNOWN = attentions.Spec(
    name="own",
    title="The model's own attention",
    backends=(Backend(OWN, plugins.no_core, layer=_built_with_its_model),),
)


class Trace:
    """peak_bytes: most bytes alive above the inputs during one call; launches: kernels (GPU) or operators (CPU).

    names: of those, in order; output: the call's result, `1x6x1024x64 float32`.
    """

    def __init__(self, peak_bytes: int, launches: int, names: list[str], output: str) -> None:
        self.peak_bytes, self.launches, self.names, self.output = peak_bytes, launches, names, output


def spec_of(case: Case) -> attentions.Spec:
    """The definition of the case's variant; of a model of others with its own attention one that says no more."""
    return UNKNOWN if case.attention == AS_IS else attentions.spec(case.attention)


def work_of(case: Case) -> attentions.Work:
    """The case as the cost models read it."""
    spec = spec_of(case)
    return attentions.Work(
        b=case.b, h=case.h, n=case.n, d=case.d, m=case.m, phase=case.core_phase,
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

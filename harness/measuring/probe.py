"""What a worker does for the regression gate (harness.check): timing in turns, deterministic figures, the definition.

hold(Hold(key="a", device="cpu", case=case))             # builds the case and warms it up
turn(Turn(key="a", seconds=0.04))                        # milliseconds of single calls, by each clock
release(Release())                                       # forgets every case that is held
probe(Probe(case=case))                                  # flops, peak_memory, kernels, numeric_error; nothing timed
definition(Definition(case=case))                        # what the variant computes, whatever its source looks like

Imports torch. Deterministic figures are taken on one thread, so that they are the same on a machine with more.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch

import attentions
from harness.machine import allocator
from harness.machine.instructions import Instructions, NoCounter
from harness.measuring import calibrate
from harness.measuring.metrics import Settings, flops, kernels, latency, memory
from harness.measuring.metrics import error as errors
from harness.measuring.requests import (
    Definition,
    Described,
    Hold,
    Load,
    Loaded,
    Probe,
    Probed,
    Release,
    Samples,
    Toolchain,
    Turn,
)
from harness.measuring.subject import Subject
from harness.store.problem import Problem
from harness.store.record import Reading, canonical_options

PROJECTIONS = 4
HELD: dict[str, Callable[[], Sample]] = {}
SMALL = {"n": 96, "m": 24, "h": 2, "d": 32}


@dataclass(frozen=True)
class Sample:
    """One call: milliseconds that passed, milliseconds of this process' CPU time, and its instructions in user mode;
    None where that is not counted, as no clock of the host counts what a GPU does."""

    wall: float
    cpu: float | None = None
    instructions: float | None = None


def load(request: Load) -> Loaded:
    """Load plugins that are not loaded yet; tell which variants they define and where the measured code lies.

    `threads`, where it is given, is how many the process computes with from here on, to be timed.
    """
    if request.threads:
        torch.set_num_threads(request.threads)
        allocator.keep()
    defined = {path: attentions.load_plugin(path) for path in request.plugins}
    plugins = [Path(path).resolve() for path in request.plugins]
    origin = (str(Path(attentions.__file__).resolve().parent), *map(str, plugins))
    return Loaded(variants=tuple(name for names in defined.values() for name in names), origin=origin)


def hold(request: Hold) -> None:
    """Make the case ready to be timed in turns under its key, warmed up; the canary where the case is None."""
    device = request.device
    if request.case is None:
        HELD[request.key] = _clocked(lambda: calibrate.canary_sample(device), device)
        return
    subject = Subject(request.case)
    take = latency.sampler(subject)  # which has warmed it up
    HELD[request.key] = _clocked_call(subject) if device == "cpu" else lambda: Sample(take(1)[0])


def turn(request: Turn) -> Samples:
    """Single calls for `seconds`, at least one, by each clock that counts them, after one that is not counted: another
    process has used the caches since."""
    sample = HELD[request.key]
    sample()
    taken: list[Sample] = []
    started = time.perf_counter()
    while not taken or time.perf_counter() - started < request.seconds:
        taken.append(sample())
    cpu = [one.cpu for one in taken if one.cpu is not None]
    instructions = [one.instructions for one in taken if one.instructions is not None]
    return Samples(milliseconds=[one.wall for one in taken], cpu=cpu, instructions=instructions)


def release(request: Release) -> None:
    """Forget every case that is held."""
    HELD.clear()


def probe(request: Probe) -> Probed:
    """Readings of what is the same in every run; raises what the case raises. kernels' note tells the output too."""
    torch.set_num_threads(1)
    subject, settings = Subject(request.case), Settings()
    subject.call()
    found: list[Reading] = []
    if not request.scaling:
        found.append(next(iter(errors.measure(subject, {}, settings))))
    found.append(next(iter(flops.measure(subject, {}, settings))))  # its rate needs a latency and is not asked for
    found += memory.measure(subject, {}, settings)
    found += kernels.measure(subject, {}, settings)
    return Probed(readings=tuple(found))


def definition(request: Definition) -> Described:
    """The declared fields, the parameters' shapes, and projections of the float64 reference's output and gradients.

    Taken at a small size on inputs and parameters that are the same on every machine, so a refactoring that computes
    the same has the same definition to 1e-9.
    """
    torch.set_num_threads(1)
    asked = request.case
    sizes = {name: min(getattr(asked, name) or SMALL[name], SMALL[name]) for name in ("n", "h", "d")}
    m = max(1, min(asked.m, SMALL["m"], sizes["n"] // 2)) if asked.m is not None else None
    options = {**asked.variant_options, **_small_problem(asked.problem, n=sizes["n"]).options}
    scope = "core" if asked.scope == "model" else asked.scope
    asked = replace(asked, scope=scope, options=canonical_options(options))
    layers = all(backend.layer for backend in attentions.spec(asked.attention).backends)  # each its own reference
    backend = asked.backend if layers else "reference"
    case = replace(asked, b=1, m=m, dtype="float64", device="cpu", backend=backend, phase="train", **sizes)
    subject = Subject(case)
    spec = subject.spec
    fields = {
        "exact": spec.exact, "bottleneck": spec.bottleneck, "shares": spec.shares_query_key,
        "options": [[o.name, o.default, list(o.choices), o.minimum] for o in spec.options],
        "exponents": asdict(spec.exponents) if spec.exponents else None,
        "parameters": {name: list(p.shape) for name, p in subject.module.named_parameters()},
    }  # fmt: skip
    generator = torch.Generator().manual_seed(20)
    with torch.no_grad():
        for parameter in subject.module.parameters():
            parameter.copy_(_exact(parameter.shape, generator) / math.sqrt(parameter.shape[-1]))
        for tensor in (*subject.inputs, subject.gradient):
            tensor.copy_(_exact(tensor.shape, generator))
    out = subject.call()
    results = [out, *(t.grad for t in (*subject.inputs, *subject.module.parameters()) if t.grad is not None)]
    values = torch.cat([t.detach().double().flatten() / t.numel() ** 0.5 for t in results])
    views = [float(values @ _exact(values.shape, generator)) for _ in range(PROJECTIONS)]
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()[:12]
    return Described(fields=digest, size=float(values.norm()), projections=views)


def _small_problem(problem: Problem, *, n: int) -> Problem:
    """The same problem at the small size: one head of keys for all, keys of half as many tokens."""
    return Problem(
        causal=problem.causal, kv_heads=None if problem.kv_heads is None else 1,
        kv_tokens=None if problem.kv_tokens is None else n // 2,
    )  # fmt: skip


def toolchain(request: Toolchain) -> str:
    """What peak memory and kernels depend on beside the code: torch's build, and the kind of device or the GPU."""
    device = torch.device(request.device)
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return f"torch {torch.__version__} {(torch.version.git_version or '')[:8]} {kind}"


def _clocked_call(subject: Subject) -> Callable[[], Sample]:
    """A function that times one call, or the mean of as many as a clock's reading is nothing against."""
    state = subject.prepare()
    each = _clocked(lambda: subject.run(state), "cpu")().wall
    repeats = 1 if subject.needs_graph else max(1, math.ceil(1e3 * latency.SHORTEST_SAMPLE_S / max(each, 1e-6)))

    def repeated() -> None:
        for _ in range(repeats):
            subject.run(None)

    def sample() -> Sample:
        if subject.needs_graph:
            state = subject.prepare()
            return _clocked(lambda: subject.run(state), "cpu")()
        taken = _clocked(repeated, "cpu")()
        counted = None if taken.instructions is None else taken.instructions / repeats
        return Sample(taken.wall / repeats, None if taken.cpu is None else taken.cpu / repeats, counted)

    return sample


def _clocked(call: Callable[[], object], device: str) -> Callable[[], Sample]:
    """A function that makes one call between readings of every clock."""
    counter = _counter() if device == "cpu" else None

    def sample() -> Sample:
        counted, used, started = counter.read() if counter else 0, time.process_time_ns(), time.perf_counter_ns()
        call()
        passed, took = time.perf_counter_ns() - started, time.process_time_ns() - used
        instructions = float(counter.read() - counted) if counter else None
        return Sample(passed / 1e6, took / 1e6 if device == "cpu" else None, instructions)

    return sample


@cache
def _counter() -> Instructions | None:
    """The instruction counter, None where the kernel gives none or torch computes with more threads than it counts."""
    if torch.get_num_threads() > 1:
        return None
    try:
        return Instructions.open()
    except NoCounter:
        return None


def _exact(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Uniform in ±√3 (variance 1) from integers: the same bits everywhere, unlike normal samples."""
    whole = torch.randint(-(1 << 20), 1 << 20, shape, generator=generator)
    return whole.double() * (math.sqrt(3) / (1 << 20))

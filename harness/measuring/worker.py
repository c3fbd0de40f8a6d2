"""The process that measures: reads a request a line on stdin, answers each with a line on stdout.

    python -m harness.measuring.worker        # started by an engine; anything a case prints goes to stderr

A case's failure is an answer, requests.CaseFailure. Where it may have left something behind, such as a poisoned CUDA
context or a heap in pieces, the engine replaces this process, so that it never reaches the next case.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler's library writes to stderr on every start otherwise

import torch

import attentions
from harness.cases import catalogue
from harness.errors import UsageError
from harness.machine import allocator, doctor, environment, parent
from harness.machine.memory import free_bytes
from harness.machine.quiet import Gpu
from harness.measuring import calibrate, probe, requests, wire
from harness.measuring.failing import classify, limit_memory
from harness.measuring.taking import attempt, finite, measure, pair
from harness.measuring.truth import KEPT
from harness.store.record import Case, Reading

Found = TypeVar("Found")


def open_session(request: requests.Open) -> requests.Session:
    """Load the plugins; tell the devices, the variants and the environment."""
    device = _begin(request.plugins, request.device)
    document = environment.collect(device)
    return requests.Session(
        device=device, catalogue=catalogue.describe([device]), environment=document,
        machine=environment.machine(document), commit=environment.commit(),
    )  # fmt: skip


def reopen(request: requests.Reopen) -> None:
    """The same for a session that is known: finding out what runs here takes as long as all else of a start."""
    _begin(request.plugins, request.device)


def resolve(request: requests.Resolve) -> tuple[catalogue.Resolution, ...]:
    """Each case with its backend, or why it has none. Raises AttentionError."""
    return tuple(_resolve(case) for case in request.cases)


def join(request: requests.Join) -> None:
    """Become a rank of a group."""
    _ranks().join(request)


def measure_part(request: requests.MeasurePart) -> requests.Measured | requests.CaseFailure:
    """This process' part of a case that several share; rank 0 answers as `measure` does."""
    started = time.perf_counter()
    limit_memory(request.device)
    try:
        found: dict[str, Reading] = _ranks().measure(request)
    except Exception as error:
        status, text = classify(error)
        return requests.CaseFailure(status=status, note=text)
    return requests.Measured(
        readings=tuple(finite(found[name]) for name in request.metrics) if found else (),
        samples=request.settings.samples, seconds={"latency": time.perf_counter() - started},
    )  # fmt: skip


def free(request: requests.Free) -> int:
    """Bytes free on the device, those that are kept for as long as nobody needs them included."""
    allocator.give_back()
    return free_bytes(request.device) + KEPT.nbytes


def ceilings(request: requests.Ceilings) -> requests.Document:
    """What the device can do."""
    return calibrate.ceilings(request.device, request.dtypes)


def canary(request: requests.Canary) -> float:
    """Milliseconds of the fixed matrix product."""
    return calibrate.canary(request.device)


def look_at_gpu(request: requests.LookAtGpu) -> Gpu | None:
    """Who else is on the GPU, and how it stands."""
    return calibrate.gpu(request.device)


def examine(request: requests.Examine) -> str:
    """What doctor finds wrong, in one line."""
    return doctor.opening(request.device, seconds=request.seconds)


def threads(request: requests.Threads) -> None:
    """Compute with so many threads from here on."""
    torch.set_num_threads(request.threads)


def hold(request: requests.Hold) -> requests.CaseFailure | None:
    """Make a case ready to be timed in turns, or tell why it cannot be."""
    return _guarded(probe.hold, request)


def turn(request: requests.Turn) -> requests.Samples | requests.CaseFailure:
    """Time what is held, or tell why it fails."""
    return _guarded(probe.turn, request)


def probed(request: requests.Probe) -> requests.Probed | requests.CaseFailure:
    """What is the same in every run of a case, or why it fails."""
    return _guarded(probe.probe, request)


def definition(request: requests.Definition) -> requests.Described | requests.CaseFailure:
    """What the case's variant computes, or why its reference fails."""
    return _guarded(probe.definition, request)


def _ranks() -> Any:
    return importlib.import_module("harness.measuring.ranks")  # on first use: torch.distributed takes a second


OPERATIONS: dict[type[requests.Request[Any]], Callable[[Any], Any]] = {
    requests.Open: open_session, requests.Reopen: reopen, requests.Resolve: resolve, requests.Free: free,
    requests.Ceilings: ceilings, requests.Canary: canary, requests.Measure: measure, requests.Try: attempt,
    requests.Pair: pair,
    requests.Threads: threads, requests.Load: probe.load, requests.Hold: hold, requests.Turn: turn,
    requests.Release: probe.release, requests.Probe: probed, requests.Definition: definition,
    requests.LookAtGpu: look_at_gpu, requests.Examine: examine, requests.Toolchain: probe.toolchain,
    requests.Join: join, requests.MeasurePart: measure_part,
}  # fmt: skip
CASES = (requests.Measure, requests.Try, requests.Pair, requests.MeasurePart)  # after which memory is given back


def main() -> None:
    """Answer requests until stdin closes, then end the process. Dies with the process that started it."""
    parent.die_with()  # where Linux is not, the closed stdin ends it
    asked = os.fdopen(os.dup(sys.stdin.fileno()), encoding="utf-8")
    told = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())  # a case that reads or prints meets neither
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for request in map(wire.decode, asked):
        try:
            answer = OPERATIONS[type(request)](request)
        except (attentions.AttentionError, UsageError) as error:
            answer = wire.Usage(usage=str(error))
        except Exception as error:
            answer = wire.Fault(fault=f"{type(error).__name__}: {error}")
        told.write(wire.encode_answer(request, answer))
        told.flush()
        if isinstance(request, CASES):
            allocator.give_back()
    sys.stderr.flush()
    os._exit(0)  # torch takes a second to leave in order, and there is nothing to keep


def _begin(plugins: Sequence[str], wanted: str) -> str:
    """Load the plugins and take the device; its name."""
    for path in plugins:
        attentions.load_plugin(path)
    device = environment.resolve_device(wanted)
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    else:
        allocator.keep()
    return device


def _resolve(case: Case) -> catalogue.Resolution:
    try:
        return catalogue.resolve(case)
    except (attentions.AttentionError, UsageError):
        raise
    except Exception as error:  # a plugin's own cost model, limits or check failed: that case's fault
        return catalogue.Resolution(case=case, status="error", note=f"in its description: {classify(error)[1]}")


def _guarded(operation: Callable[[Any], Found], request: requests.Request[Any]) -> Found | requests.CaseFailure:
    """What the operation returns, or a case's failure."""
    try:
        return operation(request)
    except Exception as error:
        status, text = classify(error)
        return requests.CaseFailure(status=status, note=text)


if __name__ == "__main__":
    main()

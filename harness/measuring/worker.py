"""The process that measures: reads a request a line on stdin, answers each with a line on stdout.

    python -m harness.measuring.worker        # started by an engine; anything a case prints goes to stderr

A case's failure is an answer, requests.CaseFailure; after one the engine replaces this process, so that a poisoned
CUDA context or a fragmented heap never reaches the next case.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler's library writes to stderr on every start otherwise

import torch

import attentions
from harness.cases import catalogue
from harness.errors import UsageError
from harness.machine import environment
from harness.machine.memory import free_bytes
from harness.measuring import calibrate, metrics, probe, requests, wire
from harness.measuring.metrics import latency
from harness.measuring.metrics.error import WrongResult
from harness.measuring.subject import Subject
from harness.store.record import Case, Reading

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory", "bad_alloc")
Found = TypeVar("Found")


def open_session(request: requests.Open) -> requests.Session:
    """Load the plugins; tell the devices, the variants and the environment."""
    for path in request.plugins:
        attentions.load_plugin(path)
    device = environment.resolve_device(request.device)
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    document = environment.collect(device)
    return requests.Session(
        device=device, catalogue=catalogue.describe([device]), environment=document,
        machine=environment.machine(document), commit=environment.commit(),
    )  # fmt: skip


def resolve(request: requests.Resolve) -> tuple[catalogue.Resolution, ...]:
    """Each case with its backend, or why it has none. Raises AttentionError."""
    return tuple(_resolve(case) for case in request.cases)


def measure(request: requests.Measure) -> requests.Measured | requests.CaseFailure:
    """All readings of one case, its raw samples, and the seconds spent in each metric."""
    case, settings = request.case, request.settings
    readings: dict[str, Reading] = {}
    seconds: dict[str, float] = {}
    stage = "set-up"
    _limit_memory(case.device)
    try:
        subject = Subject(case)
        for metric in metrics.plan(request.metrics):
            stage = metric.PROVIDES[0]
            started = time.perf_counter()
            for reading in metric.measure(subject, readings, settings):
                readings[reading.metric] = _finite(reading)
            seconds[stage] = time.perf_counter() - started
    except Exception as error:
        status, text = _classify(error)
        return requests.CaseFailure(status=status, note=f"in {stage}: {text}", seconds=seconds)
    wanted = request.metrics
    return requests.Measured(
        readings=tuple(readings[name] for name in wanted),
        samples={name: values for name, values in settings.samples.items() if name in wanted},
        seconds=seconds,
    )


def pair(request: requests.Pair) -> requests.Turns | requests.PairFailure:
    """Latency samples of two cases in turns, A B B A, once both are right and warm; or whose failure it was, 0 or 1."""
    subjects: list[Subject] = []
    _limit_memory(request.cases[0].device)
    try:
        for case in request.cases:
            subject = Subject(case)
            for metric in metrics.plan(["numeric_error"]):
                list(metric.measure(subject, {}, metrics.Settings()))
            subjects.append(subject)
        a, b = latency.in_turns(*subjects, budget_s=request.budget_s)
        return requests.Turns(a=a, b=b)
    except Exception as error:
        status, text = _classify(error)
        return requests.PairFailure(status=status, note=text, which=len(subjects) if len(subjects) < 2 else None)


def join(request: requests.Join) -> None:
    """Become a rank of a group."""
    _ranks().join(request)


def measure_part(request: requests.MeasurePart) -> requests.Measured | requests.CaseFailure:
    """This process' part of a case that several share; rank 0 answers as `measure` does."""
    started = time.perf_counter()
    _limit_memory(request.device)
    try:
        found: dict[str, Reading] = _ranks().measure(request)
    except Exception as error:
        status, text = _classify(error)
        return requests.CaseFailure(status=status, note=text)
    return requests.Measured(
        readings=tuple(_finite(found[name]) for name in request.metrics) if found else (),
        samples=request.settings.samples, seconds={"latency": time.perf_counter() - started},
    )  # fmt: skip


def free(request: requests.Free) -> int:
    """Bytes free on the device."""
    return free_bytes(request.device)


def ceilings(request: requests.Ceilings) -> requests.Document:
    """What the device can do."""
    return calibrate.ceilings(request.device, request.dtypes)


def canary(request: requests.Canary) -> float:
    """Milliseconds of the fixed matrix product."""
    return calibrate.canary(request.device)


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
    requests.Open: open_session, requests.Resolve: resolve, requests.Free: free, requests.Ceilings: ceilings,
    requests.Canary: canary, requests.Measure: measure, requests.Pair: pair, requests.Threads: threads,
    requests.Load: probe.load, requests.Hold: hold, requests.Turn: turn, requests.Release: probe.release,
    requests.Probe: probed, requests.Definition: definition, requests.Toolchain: probe.toolchain, requests.Join: join,
    requests.MeasurePart: measure_part,
}  # fmt: skip


def main() -> None:
    """Answer requests until stdin closes, then end the process. Dies with the process that started it."""
    _die_with_parent()
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
    sys.stderr.flush()
    os._exit(0)  # torch takes a second to leave in order, and there is nothing to keep


def _resolve(case: Case) -> catalogue.Resolution:
    try:
        return catalogue.resolve(case)
    except attentions.AttentionError:
        raise
    except Exception as error:  # a plugin's own cost model, limits or check failed: that case's fault
        return catalogue.Resolution(case=case, status="error", note=f"in its description: {_classify(error)[1]}")


def _finite(reading: Reading) -> Reading:
    """The reading, or an error in its place where its value is NaN or infinite."""
    if reading.value is None or math.isfinite(reading.value):
        return reading
    return Reading(metric=reading.metric, status="error", note=f"the value is {reading.value}")


def _classify(error: Exception) -> tuple[str, str]:
    """The row's status and note for what a case raised."""
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, WrongResult):
        return "error", text
    if isinstance(error, attentions.Unavailable):
        return "unavailable", text
    if isinstance(error, attentions.AttentionError):
        return "unsupported", text
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(s in text.lower() for s in OUT_OF_MEMORY):
        return "oom", text
    return "error", f"{type(error).__name__}: {text}"


def _guarded(operation: Callable[[Any], Found], request: requests.Request[Any]) -> Found | requests.CaseFailure:
    """What the operation returns, or a case's failure."""
    try:
        return operation(request)
    except Exception as error:
        status, text = _classify(error)
        return requests.CaseFailure(status=status, note=text)


def _limit_memory(device: str) -> None:
    """On the CPU: make an allocation beyond what is free now fail here, before the kernel kills someone for it."""
    if device != "cpu":
        return
    used = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = free_bytes("cpu") + _private_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (limit if used < 0 else min(limit, used), used))


def _private_bytes() -> int:
    """Bytes this process already counts against RLIMIT_DATA."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:")), 0)


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies; elsewhere the closed stdin ends it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the driver's to handle


if __name__ == "__main__":
    main()

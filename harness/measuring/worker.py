"""The process that measures: reads one JSON request a line on stdin, answers one JSON line each on stdout.

    python -m harness.measuring.worker        # started by an engine; anything a case prints goes to stderr

A case's failure is an answer, {"failure": {"status", "note"}}; after one the engine replaces this process, so that a
poisoned CUDA context or a fragmented heap never reaches the next case.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler's library writes to stderr on every start otherwise

import torch

import attentions
from harness.cases import catalogue
from harness.errors import UsageError
from harness.machine import doctor, environment
from harness.machine.memory import free_bytes
from harness.measuring import calibrate, metrics, probe
from harness.measuring.metrics import latency
from harness.measuring.metrics.error import WrongResult
from harness.measuring.subject import Subject
from harness.store.record import Case, Reading

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory", "bad_alloc")


def open_session(request: dict[str, Any]) -> dict[str, Any]:
    """Load the plugins; tell the devices, the variants and the environment."""
    for path in request["plugins"]:
        attentions.load_plugin(path)
    device = environment.resolve_device(request["device"])
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    document = environment.collect(device)
    return {
        "device": device,
        "catalogue": catalogue.describe([device]),
        "environment": document,
        "machine": environment.machine(document),
        "commit": environment.commit(),
    }


def resolve(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Each case with its backend, or why it has none. Raises AttentionError."""
    return [asdict(_resolve(Case(**case))) for case in request["cases"]]


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """All readings of one case, its raw samples, and the seconds spent in each metric."""
    case = Case(**request["case"])
    settings = metrics.Settings(**request["settings"])
    readings: dict[str, Reading] = {}
    seconds: dict[str, float] = {}
    stage = "set-up"
    _limit_memory(case.device)
    try:
        subject = Subject(case)
        for metric in metrics.plan(request["metrics"]):
            stage = metric.PROVIDES[0]
            started = time.perf_counter()
            for reading in metric.measure(subject, readings, settings):
                readings[reading.metric] = _finite(reading)
            seconds[stage] = time.perf_counter() - started
    except Exception as error:
        status, text = _classify(error)
        return {"failure": {"status": status, "note": f"in {stage}: {text}"}, "seconds": seconds}
    wanted = request["metrics"]
    return {
        "readings": [asdict(readings[name]) for name in wanted],
        "samples": {name: values for name, values in settings.samples.items() if name in wanted},
        "seconds": seconds,
    }


def pair(request: dict[str, Any]) -> dict[str, Any]:
    """Latency samples of two cases in turns, A B B A, once both are right and warm; or whose failure it was, 0 or 1."""
    subjects: list[Subject] = []
    _limit_memory(request["cases"][0]["device"])
    try:
        for case in request["cases"]:
            subject = Subject(Case(**case))
            for metric in metrics.plan(["numeric_error"]):
                list(metric.measure(subject, {}, metrics.Settings()))
            subjects.append(subject)
        return {"samples": latency.in_turns(*subjects, budget_s=request["budget_s"])}
    except Exception as error:
        status, text = _classify(error)
        return {"failure": {"status": status, "note": text, "which": len(subjects) if len(subjects) < 2 else None}}


def measure_part(request: dict[str, Any]) -> dict[str, Any]:
    """This process' part of a case that several share; rank 0 answers as `measure` does."""
    started = time.perf_counter()
    _limit_memory(request["device"])
    try:
        answer = _ranks().measure(request)
    except Exception as error:
        status, text = _classify(error)
        return {"failure": {"status": status, "note": text}}
    answer["readings"] = [asdict(_finite(reading)) for reading in answer.get("readings", [])]
    return {**answer, "seconds": {"latency": time.perf_counter() - started}}


def _ranks() -> Any:
    return importlib.import_module("harness.measuring.ranks")  # on first use: torch.distributed takes a second


OPERATIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "open": open_session,
    "resolve": resolve,
    "measure": measure,
    "pair": pair,
    "free": lambda request: free_bytes(request["device"]),
    "ceilings": lambda request: calibrate.ceilings(request["device"], request["dtypes"]),
    "load": probe.load,
    "hold": lambda request: _guarded(probe.hold, request),
    "turn": lambda request: _guarded(probe.turn, request),
    "release": probe.release,
    "probe": lambda request: _guarded(probe.probe, request),
    "definition": lambda request: _guarded(probe.definition, request),
    "toolchain": probe.toolchain,
    "canary": lambda request: calibrate.canary(request["device"]),
    "gpu": lambda request: calibrate.gpu(request["device"]),
    "examine": lambda request: doctor.opening(request["device"], seconds=request["seconds"]),
    "threads": lambda request: torch.set_num_threads(request["threads"]),
    "join": lambda request: _ranks().join(request),
    "measure_part": measure_part,
}


def main() -> None:
    """Answer requests until stdin closes, then end the process. Dies with the process that started it."""
    _die_with_parent()
    requests = os.fdopen(os.dup(sys.stdin.fileno()), encoding="utf-8")
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())  # a case that reads or prints meets neither
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for request in map(json.loads, requests):
        try:
            answer = {"answer": OPERATIONS[request["operation"]](request)}
        except (attentions.AttentionError, UsageError) as error:
            answer = {"usage": str(error)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
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


def _guarded(operation: Callable[[dict[str, Any]], Any], request: dict[str, Any]) -> dict[str, Any]:
    """What the operation returns as {"value": ...}, or a case's failure as {"failure": {"status", "note"}}."""
    try:
        return {"value": operation(request)}
    except Exception as error:
        status, text = _classify(error)
        return {"failure": {"status": status, "note": text}}


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

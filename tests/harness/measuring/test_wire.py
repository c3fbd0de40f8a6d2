"""Requests and answers survive the line between an engine and its worker, and every operation is there."""

from __future__ import annotations

import math
from typing import Any

import making
import pytest

from harness.cases.catalogue import Resolution
from harness.errors import Failure, UsageError
from harness.machine.quiet import Gpu
from harness.measuring import requests, wire, worker
from harness.measuring.metrics import Settings
from harness.store.record import Reading

CASE = making.case(attention="anchor", m=8, options="init=paper")
SETTINGS = Settings(budget_s=0.1, ceilings={"copy_gb_per_s": 1.5, "matmul_tflops": {"float32": 2}})
READING = Reading(metric="flops", value=1 << 70, ci_low=0.1, samples=1, note="a note, ±1 %\nof two lines \udc80")
MEASURED = requests.Measured(readings=(READING,), samples={"latency": [0.1, 1e-300, math.inf]}, seconds={"flops": 2.5})
FAILURE = requests.CaseFailure(status="oom", note="needs more", seconds={"latency": 1.0})
EXCHANGES: list[tuple[requests.Request[Any], list[Any]]] = [
    (
        requests.Open(plugins=("a.py",), device="auto"),
        [requests.Session(device="cpu", catalogue={"a": {"b": None}}, environment={}, machine="m", commit="")],
    ),
    (requests.Reopen(plugins=("a.py",), device="cpu"), [None]),
    (requests.Resolve(cases=(CASE,)), [(Resolution(case=CASE, status="oom", note="x", peak_bytes=1 << 60),)]),
    (requests.Free(device="cpu"), [1 << 40]),
    (requests.Ceilings(device="cpu", dtypes=("float32",)), [SETTINGS.ceilings]),
    (requests.Canary(device="cpu"), [0.125]),
    (requests.Examine(device="cpu", seconds=2.0), ["", "the machine is loaded"]),
    (requests.LookAtGpu(device="cuda:0"), [None, Gpu(processes=1, sm_mhz=1980, throttle_mask=0)]),
    (requests.Measure(case=CASE, metrics=("flops",), settings=SETTINGS), [MEASURED, FAILURE]),
    (
        requests.Pair(cases=(CASE, making.case()), budget_s=1.0),
        [requests.Turns(a=[1.0], b=[2.0]), requests.PairFailure(status="error", note="", which=None)],
    ),
    (requests.Try(case=CASE), [None, FAILURE]),
    (requests.Threads(threads=2), [None]),
    (requests.Load(plugins=()), [requests.Loaded(variants=("a",), origin=("b", "c"))]),
    (requests.Hold(key="k", device="cpu", case=None), [None, FAILURE]),
    (requests.Hold(key="k", device="cpu", case=CASE), [None]),
    (requests.Turn(key="k", seconds=0.5), [requests.Samples(milliseconds=[1.0]), FAILURE]),
    (requests.Release(), [None]),
    (requests.Probe(case=CASE, scaling=True), [requests.Probed(readings=(READING,)), FAILURE]),
    (requests.Definition(case=CASE), [requests.Described(fields="a", size=1.0, projections=[0.5]), FAILURE]),
    (requests.Toolchain(device="cpu"), ["torch"]),
    (
        requests.Join(rank=0, ranks=2, meeting=requests.MeetingFile(file="f"), device="cpu", patience_s=1.0),
        [None],
    ),
    (
        requests.Join(
            rank=1, ranks=2, meeting=requests.MeetingStore(host="h", port=1, prefix="p"), device="cpu", patience_s=1.0
        ),
        [None],
    ),
    (
        requests.MeasurePart(case=CASE, device="cpu", metrics=("flops",), settings=SETTINGS, one_process=None),
        [MEASURED, FAILURE],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "answers"), EXCHANGES, ids=lambda value: type(value).__name__)
def test_what_is_sent_arrives(request_: requests.Request[Any], answers: list[Any]) -> None:
    line = wire.encode(request_)
    assert (line.count(b"\n"), line.endswith(b"\n")) == (1, True)
    assert wire.decode(line) == request_
    for answer in answers:
        back = wire.encode_answer(request_, answer)
        assert (back.count(b"\n"), back.endswith(b"\n")) == (1, True)
        assert wire.decode_answer(request_, back) == answer


def test_every_operation_is_exchanged_here_and_known_to_the_worker() -> None:
    kinds = set(requests.Request.__subclasses__())
    assert {type(request) for request, _ in EXCHANGES} == kinds == set(worker.OPERATIONS)
    assert wire.operation(requests.MeasurePart) == "measure_part"


def test_what_stands_in_an_answers_place_is_raised() -> None:
    request = requests.Free(device="cpu")
    with pytest.raises(UsageError, match="no such device"):
        wire.decode_answer(request, wire.encode_answer(request, wire.Usage(usage="no such device")))
    with pytest.raises(Failure, match="the measuring process failed in 'free': OSError: gone"):
        wire.decode_answer(request, wire.encode_answer(request, wire.Fault(fault="OSError: gone")))


@pytest.mark.parametrize("line", ["", "a case prints\n", '{"answer": "many"}\n', "3\n", "{}\n"])
def test_what_is_no_answer_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting value|valid integer|is no answer"):
        wire.decode_answer(requests.Free(device="cpu"), line)


def test_an_unknown_operation_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown operation 'fly'; valid: canary, ceilings, "):
        wire.decode('{"operation": "fly"}')

"""A plan tells what would run, whether it fits and about how long it takes, and runs nothing."""

from __future__ import annotations

import json

import making
import pytest

from harness.cases.catalogue import Resolution
from harness.cases.space import Sweep
from harness.sweep.plan import CASE_S, START_S, Plan, estimate, render

RESOLUTIONS = [
    Resolution(case=making.case(n=64), peak_bytes=500, flops=10**6),
    Resolution(case=making.case(n=128), peak_bytes=2 * 10**9, flops=10**9),
    Resolution(case=making.case(n=256, attention="mine"), note="no model"),
    Resolution(case=making.case(n=512, backend=""), status="unavailable", note="needs a GPU"),
    Resolution(case=making.case(n=1024), peak_bytes=500, flops=10**18),
]


@pytest.fixture
def plan() -> Plan:
    return estimate(Sweep(budget=2, timeout=60), RESOLUTIONS, device="cpu", free=10**9, warnings=["left out"])


def test_each_case_has_its_status_memory_and_time(plan: Plan) -> None:
    assert [case.status for case in plan.cases] == ["ok", "oom", "ok", "unavailable", "ok"]
    assert [case.needs_bytes for case in plan.cases] == [500, 2 * 10**9, None, None, 500]
    assert [case.seconds for case in plan.cases] == [CASE_S + 2, 0, CASE_S + 2, 0, 60]
    assert plan.cases[1].note == "needs 2.0 GB, 1.0 GB free; predicted, not tried"
    assert plan.cases[3].note == "needs a GPU"
    assert plan.seconds == START_S + sum(case.seconds for case in plan.cases)
    assert [case.case_id for case in plan.cases] == [r.case.case_id for r in RESOLUTIONS]


def test_the_table_ends_with_totals_and_warnings_go_to_stderr(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    render(plan, as_json=False)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == len(RESOLUTIONS) + 2
    assert lines[-1] == "5 cases, 3 to measure on cpu (1.0 GB free); about 1:13 min"
    assert lines[2].split()[1:4] == ["ok", "?", "GB"]
    assert err == "warning: left out\n"


def test_json_is_one_document(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    render(plan, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["warnings"] == ["left out"]
    assert [case["status"] for case in document["cases"]] == [case.status for case in plan.cases]


def test_a_gpu_is_taken_to_be_faster() -> None:
    slow, fast = (
        estimate(Sweep(), RESOLUTIONS[4:], device=device, free=10**12, warnings=[]).cases[0].seconds
        for device in ("cpu", "cuda:1")
    )
    assert fast <= slow

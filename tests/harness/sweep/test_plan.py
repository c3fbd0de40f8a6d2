"""A plan tells what would run, whether it fits and about how long it takes, and runs nothing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import making
import pandas as pd
import pytest

from harness.cases.catalogue import Resolution, resolve
from harness.cases.space import Sweep
from harness.machine.quiet import Moment
from harness.machine.shown import Shown
from harness.store.record import Case
from harness.store.runs import read, read_environment
from harness.sweep import conduct
from harness.sweep.duration import START_S, Duration
from harness.sweep.plan import Plan, Speed, estimate, render

CEILINGS = {"copy_gb_per_s": 10.0, "matmul_tflops": {"float32": 0.1}}

RESOLUTIONS = [
    Resolution(case=making.case(n=64), peak_bytes=500, flops=10**6),
    Resolution(case=making.case(n=128), peak_bytes=2 * 10**9, flops=10**9),
    Resolution(case=making.case(n=256, attention="mine"), note="no model"),
    Resolution(case=making.case(n=512, backend=""), status="unavailable", note="needs a GPU"),
    Resolution(case=making.case(n=1024), peak_bytes=500, flops=10**18, note="a remark"),
]


@pytest.fixture
def plan() -> Plan:
    return planned(Sweep(budget=2, timeout=60), RESOLUTIONS, warnings=["left out"])


def planned(
    sweep: Sweep, resolutions: list[Resolution], *, device: str = "cpu", free: int = 10**9, warnings: Sequence[str] = ()
) -> Plan:
    return estimate(
        sweep, resolutions, device=device, free=free, speed=Speed(ceilings=CEILINGS), exact={"full"}, warnings=warnings
    )  # fmt: skip


def seconds(*resolutions: Resolution, budget: float = 2.0, metrics: Sequence[str] = ("latency",)) -> list[float]:
    """Of one case after the other."""
    duration = Duration(device="cpu", ceilings=CEILINGS, exact={"full", "flash"}, budget_s=budget, metrics=metrics)
    return [duration.of(resolution) for resolution in resolutions]


def test_each_case_has_its_status_memory_and_time(plan: Plan) -> None:
    assert [case.status for case in plan.cases] == ["ok", "oom", "ok", "unavailable", "timeout"]
    assert [case.needs_bytes for case in plan.cases] == [500, 2 * 10**9, None, None, 500]
    quick, refused, unknown, absent, late = (case.seconds for case in plan.cases)
    assert (refused, absent, late) == (0, 0, 60 + START_S["cpu"])
    assert 0 < quick < 1
    assert 2 < unknown < 3
    assert plan.cases[1].note == "needs 2.0 GB, 1.0 GB free; predicted, not tried"
    assert plan.cases[3].note == "needs a GPU"
    assert plan.cases[4].note.startswith("would time out: about ")
    assert plan.cases[4].note.endswith(" days against --timeout 60; a remark")
    assert plan.seconds == START_S["cpu"] + sum(case.seconds for case in plan.cases)
    assert [case.case_id for case in plan.cases] == [r.case.case_id for r in RESOLUTIONS]


def test_a_slow_call_takes_fewer_samples_than_its_budget_would_hold_fast_ones() -> None:
    """One millisecond is certain before the budget ends; 100 ms take ten samples; a second three."""
    sizes = (10**8, 10**10, 10**11)  # FLOP: at 0.1 TFLOP/s a product of 1, 100 and 1000 ms
    few = [
        Resolution(case=making.case(n=n), peak_bytes=0, flops=flops)
        for n, flops in zip((8, 16, 24), sizes, strict=True)
    ]
    fast, slow, slower = seconds(*few, budget=1.0)
    assert 0.2 < fast < 0.6
    assert 1.9 < slow < 4.5
    assert 5 < slower < 30


def test_the_reference_of_a_problem_is_paid_for_once() -> None:
    first = Resolution(case=making.case(n=4096, h=6, d=64), peak_bytes=0, flops=10**8)
    again = replace(first, case=replace(first.case, attention="flash", backend="torch"))
    other = replace(first, case=replace(first.case, seed=1))
    wider = replace(first, case=replace(first.case, dtype="float64"))
    one, two, three, four = seconds(first, again, other, wider)
    assert one == three > two + 0.5
    assert four > one  # its elements are twice as large
    assert seconds(again) == [one]


def test_metrics_that_are_not_asked_for_take_no_time() -> None:
    case = Resolution(case=making.case(n=512), peak_bytes=0, flops=10**9)
    (alone,), (timed,), (traced,) = (seconds(case, metrics=m) for m in (["params"], ["latency"], ["peak_memory"]))
    assert alone < traced < timed
    assert timed > 2


CLOSE = 1.5  # times the limit, or under it: who times out there is not foreseen for certain


@pytest.mark.parametrize("name", ["sweep", "further"])
def test_committed_runs_would_have_been_foreseen(name: str) -> None:
    """Their seconds of measuring within 30 %, by their own ceilings, and which cases timed out, but for close ones."""
    folder = Path(__file__).parents[3] / "results" / "cpu" / name
    sweep, document = conduct.stored_sweep(folder), read_environment(folder)
    frame = read(folder).drop_duplicates("case_id")
    ran = frame[frame["status"].isin(("ok", "timeout"))]
    duration = Duration(
        device="cpu", ceilings=document["ceilings"]["cpu"], exact={"full", "flash"}, budget_s=sweep.budget,
        metrics=sweep.metrics,
    )  # fmt: skip
    foreseen = {row.case_id: duration.of(resolve(_case(row))) for row in ran.itertuples()}
    late = {case_id for case_id, seconds in foreseen.items() if seconds > sweep.timeout}
    timed_out = set(ran[ran["status"] == "timeout"]["case_id"])
    missed = {case_id: foreseen[case_id] / sweep.timeout for case_id in late ^ timed_out}
    assert all(1 / CLOSE < share < CLOSE for share in missed.values()), missed
    total = sum(seconds for case_id, seconds in foreseen.items() if case_id not in timed_out)
    assert total == pytest.approx(document["measuring_s"], rel=0.3)


def _case(row: Any) -> Case:
    values = {field.name: getattr(row, field.name) for field in fields(Case)}
    whole = {name: int(values[name]) for name in ("b", "h", "n", "d", "seed")}
    m = None if pd.isna(values["m"]) else int(values["m"])
    return Case(**values | whole | {"m": m, "options": values["options"] or ""})


def test_the_table_ends_with_totals_and_warnings_go_to_stderr(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    render(plan, as_json=False)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith("all: ")
    assert "float32" in lines[0]
    assert lines[-1] == "5 cases, 2 to measure on cpu (1.0 GB free), 1 would time out; about 1:15 min"
    cases = [line for line in lines if line[:12] in {case.case_id for case in plan.cases}]
    assert len(cases) == len(RESOLUTIONS)
    assert not any("float32" in line for line in cases)
    assert cases[2].split()[1:4] == ["ok", "?", "GB"]
    assert cases[4][14:28] == "would time out"
    assert re.search(r"\n +about \d+ days against --timeout 60; a remark\n", out)
    assert err == "warning: left out\n"


def test_a_reason_that_many_cases_share_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    absent = [Resolution(case=making.case(n=n, backend=""), status="unavailable", note="no GPU") for n in (64, 128)]
    render(planned(Sweep(), absent), as_json=False)
    assert capsys.readouterr().out.count("no GPU") == 1


class Busy:
    """An engine whose canary takes `slower` times what it has shown, and whose ceilings are as much too low."""

    def __init__(self, slower: float) -> None:
        self.slower = slower

    def canary(self) -> float:
        return 4.0 * self.slower

    def moment(self) -> Moment:
        return Moment(seconds=time.monotonic())

    def ceilings(self, dtypes: Sequence[str]) -> dict[str, Any]:
        return {"copy_gb_per_s": 10.0 / self.slower, "matmul_tflops": dict.fromkeys(dtypes, 0.1 / self.slower)}


@pytest.mark.parametrize("slower", [1.0, 50.0])
def test_a_busy_machine_is_told_and_its_speed_is_not_taken_for_its_own(
    slower: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan said 40 hours: its ceilings had been measured beside other work."""
    session = {"machine": "here", "device": "cpu", "environment": {"torch": {"threads": 2}}}
    Shown.open("here", "cpu").tell(4.0)
    speed = Speed.of(Busy(slower), session, ["float32"], patience_s=0)
    assert speed.factor == pytest.approx(slower)
    assert speed.ceilings["matmul_tflops"] == pytest.approx({"float32": 0.1})
    assert speed.ceilings["copy_gb_per_s"] == pytest.approx(10.0)
    cases = RESOLUTIONS[:1]
    found = estimate(Sweep(), cases, device="cpu", free=10**9, speed=speed, exact={"full"}, warnings=[])
    quiet = planned(Sweep(), cases)
    assert found.seconds == pytest.approx(quiet.seconds)
    render(found, as_json=False)
    out, err = capsys.readouterr()
    if slower == 1.0:
        assert (err, out.splitlines()[-1].endswith(" min")) == ("", True)
        return
    assert "warning: the machine was busy as its speed was measured (the canary took 50× its best" in err
    assert "50 times as many if it stays so" in err
    most = START_S["cpu"] + slower * (quiet.seconds - START_S["cpu"])
    assert found.most_seconds == pytest.approx(most)
    assert out.splitlines()[-1].endswith(" min, as busy as it is")


def test_what_the_doctor_finds_wrong_is_told_before_the_cases() -> None:
    asked: list[float] = []

    class Ill:
        def examine(self, seconds: float) -> str:
            asked.append(seconds)
            return "other work: 0.97 cores busy"

    engine: Any = Ill()
    told = conduct.examined(engine, Sweep(), RESOLUTIONS)
    assert (told, asked) == (["this machine is not fit to measure on now: other work: 0.97 cores busy"], [2.0])
    assert conduct.examined(engine, Sweep(), RESOLUTIONS[3:4]) == []  # nothing would be measured
    assert asked == [2.0]


def test_json_is_one_document(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    render(plan, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["warnings"] == ["left out"]
    assert [case["status"] for case in document["cases"]] == [case.status for case in plan.cases]

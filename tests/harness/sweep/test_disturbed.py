"""A run on a machine that is not quiet: what its rows, its warnings and its environment say."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import making
import pytest
from test_sweep import WANTED, Script, environment, run

from harness.engines.local import Outcome
from harness.machine.quiet import Moment
from harness.store import contention
from harness.store import runs as store
from harness.store.record import Case, Reading

TIMES = ("latency", "throughput")


class Noisy(Script):
    """An engine beside a neighbour that has `others` cores from the `since`-th case on."""

    def __init__(self, *, others: float = 0.0, since: int = 0, canary: Any = (4.0,), examined: str = "") -> None:
        super().__init__(sure, canary=canary)
        self.others, self.since, self.examined, self.moments = others, since, examined, 0

    def open(self) -> dict[str, Any]:
        return {**super().open(), "environment": {"torch": {"threads": 2}}}

    def moment(self) -> Moment:
        self.moments += 1
        taken = self.others * max(0, self.moments - 2 * self.since)
        return Moment(
            seconds=float(self.moments), cores=2, busy_s=taken + self.moments, steal_s=0.0, own_s=float(self.moments)
        )

    def examine(self, seconds: float) -> str:
        self.asked.append(f"examine {seconds:g}")
        return self.examined


def sure(case: Case) -> Outcome:
    found = [
        Reading(metric=name, value=float(case.n), ci_low=case.n * 0.999, ci_high=case.n * 1.001, samples=99)
        for name in TIMES
    ]
    return Outcome(readings=[*found, Reading(metric="flops", value=7)], samples={"latency": [1.0, 2.0]})


SWEEP = WANTED.model_copy(update={"metrics": (*TIMES, "flops"), "patience": 0.0})


def test_a_disturbed_case_says_so_in_its_rows_with_an_honest_interval(tmp_path: Path) -> None:
    _, heard = run(tmp_path / "run", Noisy(others=0.66), SWEEP)
    frame: Any = store.read(tmp_path / "run")
    timed = frame[frame["metric"].isin(TIMES)]
    assert set(timed["note"].map(contention.reason)) == {"others had 0.66 of 2 cores"}
    assert timed["note"].str.startswith("contended: ").all()
    factor = 2 / 1.34
    assert timed["ci_low"].to_numpy() == pytest.approx(timed["value"].to_numpy() * 0.999 / factor)
    assert timed["ci_high"].to_numpy() == pytest.approx(timed["value"].to_numpy() * 1.001 * factor)
    assert not frame[frame["metric"] == "flops"]["note"].map(contention.reason).any()
    assert heard.warnings[-1] == (
        "6 of 6 cases were disturbed by other work; 6 stay marked contended, their figures may be far off: stop other "
        "work (harness doctor names it) and measure again, or give the run more --patience"
    )
    (session,) = environment(tmp_path / "run")["sessions"]
    assert set(session["contended_cases"].values()) == {"others had 0.66 of 2 cores"}
    assert session["cases"] == len(session["contended_cases"]) == 6


def test_a_quiet_run_says_nothing(tmp_path: Path) -> None:
    _, heard = run(tmp_path / "run", Noisy(), SWEEP)
    assert heard.warnings == []
    assert not contention.count(store.read(tmp_path / "run")["note"])
    (session,) = environment(tmp_path / "run")["sessions"]
    assert (session["contended_cases"], session["suspect_cases"], session["cases_taken_again"]) == ({}, {}, 0)


def test_what_is_wrong_with_the_machine_is_told_before_the_first_case(tmp_path: Path) -> None:
    engine = Noisy(examined="other work: 0.97 cores busy")
    _, heard = run(tmp_path / "run", engine, SWEEP.model_copy(update={"budget": 0.5}))
    assert heard.warnings == ["this machine is not fit to measure on now: other work: 0.97 cores busy"]
    assert engine.asked[0] == "examine 0.5"
    again = Noisy(examined="never asked")
    run(tmp_path / "run", again, SWEEP, resume=True)
    assert again.asked == []  # nothing is left to measure


def test_the_canary_is_held_against_all_of_the_run_and_its_cases_are_named(tmp_path: Path) -> None:
    """First and last agree, the middle is bad: what the issue saw. And a machine that never was quiet before."""
    _, heard = run(tmp_path / "run", Noisy(canary=[4.1, 4.1, 4.1, 23.7, 4.1, 4.1, 4.1, 4.1, 4.1]), SWEEP)
    assert heard.warnings[-2].startswith(
        "a fixed matrix product took up to 5.78× the best that this machine has shown (4.1 ms) beside "
    )
    assert heard.warnings[-2].count("n=") == 2  # the case before that look and the one after it
    assert heard.warnings[-1].startswith("2 of 6 cases were disturbed")


def test_a_run_that_began_under_load_is_not_its_own_measure(tmp_path: Path, no_memory: Path) -> None:
    """The first looks were the best known then, so their cases passed; what came later shows what they were."""
    _, heard = run(tmp_path / "run", Noisy(canary=[48, 48, 48, 48, *[4.0] * 9]), SWEEP)  # two around the ceilings
    frame: Any = store.read(tmp_path / "run")
    (session,) = environment(tmp_path / "run")["sessions"]
    everything = set(session["suspect_cases"]) | set(session["contended_cases"])
    assert len(everything) == 3  # beside a look of 48 ms: the first two and the one between 48 and 4
    assert set(frame[frame["note"].map(contention.reason) != ""]["case_id"]) == everything
    assert heard.warnings[-1].startswith("3 of 6 cases were disturbed")
    _, heard = run(tmp_path / "again", Noisy(canary=[48] * 9), SWEEP)  # the machine's best is remembered
    assert heard.warnings[-1].startswith("6 of 6 cases were disturbed")


def test_points_above_the_roof_are_told_as_an_error_of_the_ceilings(tmp_path: Path) -> None:
    """The worker takes ceilings again that a case exceeds; the run says so, and its later cases are held to them."""

    class Roof(Noisy):
        def measure(self, case: Case, **how: Any) -> Outcome:
            self.measured.append(case)
            self.settings.append(how["settings"])
            higher = {"copy_gb_per_s": 20.0, "matmul_tflops": {"float32": 0.1}}
            return replace(sure(case), ceilings=higher if len(self.measured) == 1 else None)

    engine = Roof()
    _, heard = run(tmp_path / "run", engine, SWEEP)
    (told,) = heard.warnings
    assert "lay above the roof, which is an error of the ceilings: taken again" in told
    assert "copy 10 GB/s, float32 0.1 TFLOP/s → copy 20 GB/s" in told
    assert [settings.ceilings["copy_gb_per_s"] for settings in engine.settings] == [10.0, *[20.0] * 5]
    assert environment(tmp_path / "run")["ceilings"]["cpu"]["copy_gb_per_s"] == 20.0


def test_ceilings_taken_beside_a_neighbour_are_told(tmp_path: Path) -> None:
    _, heard = run(tmp_path / "run", Noisy(others=1.0), SWEEP)
    assert heard.warnings[0] == "the ceilings may be too low: they were measured while others had 1 of 2 cores"


@pytest.mark.parametrize("patience", [0, 5.5, "7"])
def test_patience_is_a_key_of_sweeps(patience: Any) -> None:
    from harness.cases.space import Sweep

    found = Sweep.parse({"patience": patience})
    assert found.patience == float(patience)
    assert f"patience = {float(patience)}" in found.to_toml()
    assert Sweep.parse({}).patience == 20.0


@pytest.mark.parametrize("patience", [-1, math.nan, math.inf, "soon", True, 1e9])
def test_patience_is_a_bounded_time(patience: Any) -> None:
    from harness.cases.space import Sweep
    from harness.errors import UsageError

    with pytest.raises(UsageError, match="patience takes seconds, 0 or more and at most 86400, not"):
        Sweep.parse({"patience": patience})


def test_a_mark_is_read_where_it_was_written() -> None:
    reading = Reading(metric="latency", value=2.0, ci_low=1.9, ci_high=2.1, note="stopped: budget at ±5 %")
    marked = contention.contended(reading, "a; b", factor=2.0)
    assert marked.note == "contended: a, b; stopped: budget at ±5 %"
    assert contention.reason(marked.note) == "a, b"
    assert (marked.ci_low, marked.ci_high) == (0.95, 4.2)
    assert contention.reason("stopped: budget; a remark") == ""
    assert contention.contended(reading, "", factor=2.0) == reading
    assert contention.contended(replace(reading, metric="flops"), "a", factor=2.0).note == reading.note
    assert contention.contended(replace(reading, status="error", value=None), "a", factor=2.0).status == "error"
    late = contention.contended(Reading(metric="latency", status="timeout", note="no result"), "a", factor=2.0)
    assert (late.note, late.ci_low) == ("contended: a; no result", None)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"sessions": None},
        {"sessions": ["?"]},
        {"sessions": [{"suspect_cases": {"a": "?"}}, {"suspect_cases": 7}]},
        {"sessions": {"a": 1}},
    ],
)
def test_a_strange_environment_marks_nothing(document: dict[str, Any]) -> None:
    assert contention.suspects(document) == {}


def test_suspects_of_every_session_are_marked_once(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    rows = [*making.rows(making.case()), *making.rows(making.case(n=128), note="contended: a")]
    frame = pandas.DataFrame([{name: getattr(row, name) for name in store.COLUMNS} for row in rows])
    sessions = [{"suspect_cases": {making.case().case_id: 2.0}}, {"suspect_cases": {making.case(n=128).case_id: 3}}]
    found = contention.mark_suspects(frame, {"sessions": sessions})
    later = "contended: the canary took 2× its best, as was seen afterwards"
    assert list(found["note"]) == [later, "", "contended: a", "contended: a"]
    assert (found["ci_low"][0], found["ci_high"][0]) == (0.75, 3.0)
    assert list(frame["note"]) == ["", "", "contended: a", "contended: a"]

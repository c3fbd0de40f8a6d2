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
    _, heard = run(tmp_path / "run", Noisy(canary=[4.1, 4.1, 23.7, 4.1, 4.1, 4.1, 4.1, 4.1]), SWEEP)
    assert heard.warnings[-2].startswith(
        "a fixed matrix product took up to 5.78× the best that this machine has shown (4.1 ms) beside "
    )
    assert heard.warnings[-2].count("n=") == 2  # the case before that look and the one after it
    assert heard.warnings[-1].startswith("2 of 6 cases were disturbed")


def test_a_run_that_began_under_load_is_not_its_own_measure(tmp_path: Path, no_memory: Path) -> None:
    """The first looks were the best known then, so their cases passed; what came later shows what they were."""
    _, heard = run(tmp_path / "run", Noisy(canary=[48, 48, 48, *[4.0] * 9]), SWEEP)
    frame: Any = store.read(tmp_path / "run")
    (session,) = environment(tmp_path / "run")["sessions"]
    everything = set(session["suspect_cases"]) | set(session["contended_cases"])
    assert len(everything) == 3  # beside a look of 48 ms: the first two and the one between 48 and 4
    assert set(frame[frame["note"].map(contention.reason) != ""]["case_id"]) == everything
    assert heard.warnings[-1].startswith("3 of 6 cases were disturbed")
    _, heard = run(tmp_path / "again", Noisy(canary=[48] * 9), SWEEP)  # the machine's best is remembered
    assert heard.warnings[-1].startswith("6 of 6 cases were disturbed")


def test_points_above_the_roof_are_an_error_of_the_ceiling(tmp_path: Path) -> None:
    """The ceilings were taken beside a neighbour; a case that exceeds them has them, and then itself, taken again."""
    rates = iter([5.0, 10.0])

    class Roof(Noisy):
        def ceilings(self, dtypes: Any) -> dict[str, Any]:
            self.asked.append("ceilings")
            return {"copy_gb_per_s": next(rates), "matmul_tflops": dict.fromkeys(dtypes, 0.1)}

        def measure(self, case: Case, **how: Any) -> Outcome:
            self.measured.append(case)
            share = 8.0 / how["settings"]["ceilings"]["copy_gb_per_s"]
            return Outcome(
                readings=[Reading(metric="latency", value=1.0), Reading(metric="roofline_fraction", value=share)]
            )

    engine = Roof()
    wanted = SWEEP.model_copy(update={"metrics": ("latency", "roofline_fraction")})
    _, heard = run(tmp_path / "run", engine, wanted)
    assert engine.asked.count("ceilings") == 2
    assert len(engine.measured) == 7
    frame: Any = store.read(tmp_path / "run")
    assert set(frame[frame["metric"] == "roofline_fraction"]["value"]) == {0.8}
    (told,) = heard.warnings
    assert "lay above the roof, which is an error of the ceilings: taken again" in told
    assert "copy 5 GB/s, float32 0.1 TFLOP/s → copy 10 GB/s" in told
    assert environment(tmp_path / "run")["ceilings"]["cpu"]["copy_gb_per_s"] == 10.0


def test_a_roof_that_does_not_rise_is_not_taken_for_ever(tmp_path: Path) -> None:
    class Stubborn(Noisy):
        def measure(self, case: Case, **how: Any) -> Outcome:
            self.measured.append(case)
            return Outcome(
                readings=[Reading(metric="latency", value=1.0), Reading(metric="roofline_fraction", value=1.2)]
            )

    engine = Stubborn()
    run(tmp_path / "run", engine, SWEEP.model_copy(update={"metrics": ("latency", "roofline_fraction")}))
    assert sum(entry.startswith("ceilings") for entry in engine.asked) == 4
    assert len(engine.measured) == 6


def test_ceilings_taken_beside_a_neighbour_are_told(tmp_path: Path) -> None:
    wanted = SWEEP.model_copy(update={"metrics": ("latency", "throughput", "flops", "roofline_fraction")})
    _, heard = run(tmp_path / "run", Noisy(others=1.0), wanted)
    assert heard.warnings[0].startswith("the ceilings may be too low; they were measured while others had 1 of 2 cores")


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

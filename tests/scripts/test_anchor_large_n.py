"""What scripts/anchor_large_n.py would time and makes of its times, without a device."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from scripting import load

pytest.importorskip("triton")


@pytest.fixture
def script() -> ModuleType:
    return load("anchor_large_n")


class FakePlan:
    """A launch that writes `value`, a different one each time if it `strays`."""

    def __init__(self, value: float = 1.0, *, strays: bool = False) -> None:
        self.value, self.strays = value, strays
        self.launches, self.choice = (SimpleNamespace(programs=7),), SimpleNamespace(splits=3)

    def run(self, given: Mapping[str, torch.Tensor]) -> list[Any]:
        self.value += self.strays
        given["out"].fill_(self.value)
        return [SimpleNamespace(n_regs=99, n_spills=0)]


class FakeProblem:
    def __init__(self, n: int, phase: str) -> None:
        self.given = {"out": torch.empty(n)}

    def results(self, plan: FakePlan) -> list[torch.Tensor]:
        plan.run(self.given)
        return [self.given["out"].clone()]


class FakeClock:
    """Two milliseconds more at every call, whoever is called."""

    def __init__(self) -> None:
        self.called = itertools.count(1)

    def once(self, call: Callable[[], object]) -> float:
        call()
        return 2.0 * next(self.called)


@pytest.fixture
def pretended(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> dict[str, FakePlan | Exception]:
    """A device that is not there: what each form's plan is, or why there is none."""
    plans: dict[str, FakePlan | Exception] = {"split": FakePlan()}

    def plan_of(form: str, n: int, device: object, phase: str = "forward") -> FakePlan:
        found = plans[form]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(script, "plan_of", plan_of)
    monkeypatch.setattr(script, "Problem", FakeProblem)
    monkeypatch.setattr(script.devices, "device_of", lambda device: script.devices.H100)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return plans


def test_every_form_can_be_planned_or_says_why_not(script: ModuleType) -> None:
    for phase, forms in script.chosen("both", "").items():
        for form, n in itertools.product(forms, script.TOKENS):
            if (form, n) == ("skewed deep", 65536):
                with pytest.raises(ValueError, match="on the device at once"):
                    script.plan_of(form, n, script.devices.H100, phase)
            else:
                assert script.plan_of(form, n, script.devices.H100, phase).tensors == script.PHASES[phase].tensors


def test_a_phase_has_those_of_the_forms_asked_for_that_it_has(script: ModuleType) -> None:
    every = script.chosen("both", "")
    assert list(every) == ["forward", "backward"]
    assert all(forms == list(script.PHASES[phase].forms) for phase, forms in every.items())
    assert script.chosen("both", "split,early,skewed fine") == {
        "forward": ["split", "early"], "backward": ["split", "skewed fine"]
    }  # fmt: skip
    assert script.chosen("backward", "skewed") == {"backward": ["skewed"]}
    with pytest.raises(ValueError, match="no form early; valid: split, skewed, skewed fine"):
        script.chosen("backward", "early,split")


def test_what_could_hang_comes_last_and_beside_split(script: ModuleType) -> None:
    chosen = ["specialised", "skewed", "split", "early", "mapped", "skewed deep"]
    early, skewed, specialised = script.groups(chosen)
    assert early == ["split", "early", "mapped"]
    assert skewed == ["split", "skewed", "skewed deep"]
    assert specialised == ["split", "specialised"], "after all that is known to run"
    assert script.groups(["early"]) == [["split", "early"]]
    assert script.groups(["split", "skewed", "skewed fine"]) == [["split", "skewed", "skewed fine"]]


def test_every_round_times_each_form_once(script: ModuleType) -> None:
    seen: list[str] = []
    calls = {name: (lambda name=name: seen.append(name)) for name in ("split", "early", "mapped")}
    times = script.paired(calls, FakeClock().once, rounds=20)
    rounds = [seen[at : at + 3] for at in range(0, 60, 3)]
    assert all(sorted(each) == sorted(calls) for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1, "one order would give each form its own place after another"
    assert [len(own) for own in times.values()] == [20, 20, 20]


def test_figures_are_of_pairs_and_of_the_least_bytes(script: ModuleType) -> None:
    n = 4096
    least = 3 * 8 * 12 * n * 64 * 2
    split = [1.0, 2.0, 4.0] * 4  # a device that is now quick and now slow
    found = script.figures({"split": split, "early": [0.9 * x for x in split]}, n, copy_rate=least / 0.9)
    assert (found["split"]["to_split"], found["split"]["ms"]) == ("1.000", "2.0000")
    early = found["early"]
    told = early["to_split"], early["low"], early["high"]
    assert told == ("0.900", "0.900", "0.900"), "of each round, not of medians"
    assert early["of_copy"] == "0.500", "0.9 ms of copying in 1.8 ms"
    backward = script.figures({"split": split}, n, copy_rate=least / 0.9, phase="backward")
    assert backward["split"]["of_copy"] == "0.750", "five tensors for three: 1.5 ms of copying in 2"


def test_a_form_that_cannot_run_is_a_row_and_stops_no_other(script: ModuleType, pretended: dict[str, Any]) -> None:
    pretended |= {"early": RuntimeError("too many\nprograms"), "mapped": FakePlan()}
    rows = list(script.measure(16, ["split", "early", "mapped"], FakeClock(), copy_rate=1.0))
    assert [(row["form"], row.get("note", "")) for row in rows] == [
        ("early", "too many programs"), ("split", ""), ("mapped", "")
    ]  # fmt: skip
    assert {row["form"]: (row["error"], row["repeats"], row["programs"]) for row in rows if "error" in row} == {
        "split": ("0.0e+00", True, 7), "mapped": ("0.0e+00", True, 7)
    }  # fmt: skip
    assert all(script.sound(row) for row in rows)


def test_other_values_than_splits_and_such_as_do_not_repeat_are_no_success(
    script: ModuleType, pretended: dict[str, Any]
) -> None:
    pretended |= {"early": FakePlan(1.5), "mapped": FakePlan(0.0, strays=True)}
    rows = {row["form"]: row for row in script.measure(16, list(pretended), FakeClock(), 1.0, "backward")}
    assert {row["phase"] for row in rows.values()} == {"backward"}
    assert rows["early"]["error"] == "5.0e-01"
    assert rows["mapped"]["repeats"] is False
    assert {form: script.sound(row) for form, row in rows.items()} == {"split": True, "early": False, "mapped": False}


def test_the_largest_error_of_what_is_filled_counts_and_no_other_hides_nan(script: ModuleType) -> None:
    one, two, nothing = torch.ones(4), torch.full((4,), 1.5), torch.full((4,), float("nan"))
    assert script.apart([one, two], [one, one]) == 0.5
    for found in ([nothing, two], [two, nothing]):
        row = {"error": f"{script.apart(found, [one, one]):.1e}", "repeats": True}
        assert row["error"] == "nan"
        assert not script.sound(row)


def test_what_is_asked_wrongly_is_one_line(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    wrong = (
        (["--forms", "split,later"], "no form later; valid: split, early"),
        (["--phase", "backward", "--forms", "early"], "no form early; valid: split, skewed"),
        ([], "no CUDA device here"),
    )
    for words, said in wrong:
        monkeypatch.setattr("sys.argv", ["anchor_large_n.py", *words, "--out", str(tmp_path / "forms.csv")])
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert script.main() == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line


def test_the_compilers_report_names_what_does_not_fit(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from attentions.kernels import ahead

    def resources(launch: Any, *, capability: int) -> ahead.Resources:
        wide = launch.constants["BLOCK_N"] == 128
        return ahead.Resources(launch.kernel.__name__, capability, 168, 8 * wide, 1024, 32 * launch.warps, 0, 4)

    monkeypatch.setattr(ahead, "compile_launch", resources)
    monkeypatch.setattr(ahead, "compiled", lambda *_, **__: SimpleNamespace(asm={"ptx": "cp.async.cg cp.async.cg"}))
    asked = script.chosen("both", "")
    broken = script.ahead(tmp_path / "report.csv", asked)
    rows = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    assert broken == sum(row["tokens"] == "128" for row in rows) > 0
    assert {row["cp.async.cg"] for row in rows} == {"2"}
    assert {(row["phase"], row["form"]) for row in rows} == {(phase, form) for phase in asked for form in asked[phase]}

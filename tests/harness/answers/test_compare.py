"""Two stored runs side by side: what may be compared, what it shows, and exit code 4 where there is nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import making
import numpy as np
import pytest

from harness import cli
from harness.answers.compare import Line, compare
from harness.errors import NothingToCompare, UsageError
from harness.store.record import Case, Reading
from harness.store.runs import SAMPLES, Store

CASES = [making.case(n=n) for n in (64, 128)]


def write(
    folder: Path, *, factor: float = 1.0, cases: list[Case] = CASES, count: int = 40, machine: str = "here",
    seed: int = 0, spread: float = 0.02, more: dict[str, float | None] | None = None,
) -> Path:  # fmt: skip
    """A run whose latencies are `factor` ms with a spread; `more` gives other metrics' values."""
    random = np.random.default_rng(seed)
    metrics = ("latency", *(more or {}))
    with Store.open(folder, metrics=metrics) as run:
        for case in cases:
            times = factor * np.exp(spread * random.standard_normal(count))
            latency = Reading(metric="latency", value=float(np.median(times)), samples=count)
            others = [Reading(metric=name, value=value) for name, value in (more or {}).items()]
            rows = [making.row(case, reading, machine=machine) for reading in (latency, *others)]
            run.append(rows, {"latency": list(times)})
    return folder


def test_rows_are_chosen_in_the_words_of_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [making.case(n=64), making.case(n=64, options="causal=true"), making.case(n=128, h=4)]
    a, b = (str(write(tmp_path / name, cases=cases)) for name in "ab")
    for words, found in ((["--causal"], [1]), (["--heads", "4"], [2]), (["--n", "64", "--kv-heads", "2"], [0, 1])):
        assert cli.main(["compare", a, b, "--json", *words]) == 0
        lines = json.loads(capsys.readouterr().out)["lines"]
        assert {line["case_id"] for line in lines} == {cases[at].case_id for at in found}
    assert cli.main(["compare", a, b, "--head-dim", "64"]) == 2
    assert "--head-dim 64 is not in this run; it holds 16" in capsys.readouterr().err


def verdicts(lines: list[Line]) -> list[str]:
    return [line.verdict for line in lines]


def test_a_run_is_the_same_as_itself(tmp_path: Path) -> None:
    run = write(tmp_path / "a")
    lines = compare(run, run)
    assert verdicts(lines) == ["same", "same"]
    assert all(line.ratio == 1 and line.low <= 1 <= line.high for line in lines)


@pytest.mark.parametrize(
    ("factor", "spread", "verdict"),
    [
        (1.2, 0.02, "slower"), (0.8, 0.02, "faster"), (1.01, 0.02, "same"), (1.05, 0.02, "inconclusive"),
        (1.2, 1.0, "inconclusive"),
    ],
)  # fmt: skip
def test_a_difference_needs_an_interval_beyond_five_percent(
    tmp_path: Path, factor: float, spread: float, verdict: str
) -> None:
    a = write(tmp_path / "a", spread=spread)
    b = write(tmp_path / "b", factor=factor, spread=spread, seed=1)
    lines = compare(a, b)
    assert verdicts(lines) == [verdict] * 2
    assert all(line.low <= line.ratio <= line.high for line in lines)
    assert "drift" in lines[0].reason


def test_times_of_other_machines_are_not_compared_and_counts_are(tmp_path: Path) -> None:
    more = {"flops": 100.0, "peak_memory": 2.0, "kernels": 5.0, "throughput": 9.0}
    a = write(tmp_path / "a", more=more)
    b = write(tmp_path / "b", machine="there", more=more | {"kernels": 6.0, "peak_memory": 1.5})
    lines = {line.metric: line for line in compare(a, b, metrics=("latency", *more)) if "n=64" in line.case}
    assert {name: line.verdict for name, line in lines.items()} == {
        "latency": "not comparable", "flops": "same", "peak_memory": "less", "kernels": "more",
        "throughput": "not comparable",
    }  # fmt: skip
    assert lines["latency"].reason == "other machines: here and there"
    assert lines["kernels"].ratio == 1.2


def test_errors_may_double(tmp_path: Path) -> None:
    a = write(tmp_path / "a", more={"numeric_error": 1e-7, "approximation_error": 0.0})
    b = write(tmp_path / "b", machine="there", more={"numeric_error": 1.9e-7, "approximation_error": 0.1})
    found = [line for line in compare(a, b, metrics=("numeric_error", "approximation_error")) if "n=64" in line.case]
    assert [(line.verdict, line.ratio) for line in found] == [("same", pytest.approx(1.9)), ("more", None)]


def test_few_or_no_samples_show_nothing(tmp_path: Path) -> None:
    a, few = write(tmp_path / "a"), write(tmp_path / "few", count=9)
    assert verdicts(compare(a, few)) == ["inconclusive"] * 2
    none = write(tmp_path / "none")
    (none / SAMPLES).unlink()
    lines = compare(a, none)
    assert verdicts(lines) == ["inconclusive"] * 2
    assert lines[0].reason == "needs at least 10 raw samples in both runs"
    assert lines[0].ratio == pytest.approx(1)


def test_damaged_samples_are_told(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a"), write(tmp_path / "b")
    path = b / SAMPLES
    lines = path.read_text().splitlines()
    lines[1] = ",".join([*lines[1].split(",")[:3], "nan"])
    lines[50] = ",".join([*lines[50].split(",")[:3], "0.0"])
    path.write_text("\n".join(lines) + "\n")
    found = compare(b, a)
    assert [(line.verdict, line.reason) for line in found] == [
        ("inconclusive", "the raw samples are damaged: 1 of 40 samples are not finite"),
        ("inconclusive", "the raw samples are damaged: a ratio needs positive denominators"),
    ]


def test_missing_and_failed_cases_are_lines_with_their_reason(tmp_path: Path) -> None:
    a = write(tmp_path / "a", cases=[*CASES, making.case(n=256)])
    with Store.open(tmp_path / "b", metrics=("latency",)) as run:
        run.append(making.failed(CASES[0], note="needs 9 GB"), {})
        run.append([making.row(CASES[1], Reading(metric="latency", value=math.nan))], {})
        run.append([making.row(making.case(n=512), Reading(metric="latency", value=1.0))], {})
    lines = compare(a, tmp_path / "b")
    assert [(line.verdict, line.reason) for line in lines] == [
        ("not comparable", "oom in run B: needs 9 GB"),
        ("not comparable", "no finite figure in run B"),
        ("missing", "run B lacks this case or metric"),  # n=256
        ("missing", "run A lacks this case or metric"),  # n=512
    ]
    assert [(line.a is None, line.b is None) for line in lines] == [
        (False, True), (False, True), (False, True), (True, False)
    ]  # fmt: skip


def test_lines_are_in_order_and_told_apart_by_their_options(tmp_path: Path) -> None:
    anchors = [making.case(attention="anchor", n=64, m=m, options=o) for m in (32, 16) for o in ("init=paper", "")]
    run = write(tmp_path / "a", cases=[*anchors, *CASES[::-1]])
    cases = [line.case for line in compare(run, run)]
    assert len(set(cases)) == 6
    assert [case.split()[0].partition(":")[0] for case in cases] == ["full"] * 2 + ["anchor"] * 4
    assert [case.split()[1] for case in cases[:2]] == ["n=64", "n=128"]
    assert [case.endswith("init=paper") for case in cases[2:]] == [False, True, False, True]
    assert ["m=16" in case for case in cases[2:]] == [True, True, False, False]


def test_an_inconclusive_line_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write(tmp_path / "a", count=5)
    code, out, _ = run_cli(capsys, run, run)
    assert (code, out.splitlines()[-1]) == (0, "inconclusive: needs at least 10 raw samples in both runs")


def test_runs_that_share_nothing_have_nothing_to_compare(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a"), write(tmp_path / "b", cases=[making.case(n=256)])
    with pytest.raises(NothingToCompare, match="share no case: they differ in variant, size, dtype, phase or device"):
        compare(a, b)
    with pytest.raises(NothingToCompare, match=r"neither .* holds energy"):
        compare(a, a, metrics=("energy",))
    with pytest.raises(UsageError, match="did you mean 'latency'"):
        compare(a, a, metrics=("latencyy",))


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    code = cli.main(["compare", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_the_command_prints_lines_or_one_json_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write(tmp_path / "a"), write(tmp_path / "b", factor=1.3)
    code, out, err = run_cli(capsys, a, b)
    assert (code, err) == (0, "")
    assert out.startswith(
        "slower         full:reference n=64 b=1 h=2 d=16 float32 forward core  latency 0.9974 → 1.297 ms  ×1.300 ("
    )
    assert "\n2 slower\n" in out
    code, out, err = run_cli(capsys, a, b, "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert [line["verdict"] for line in document["lines"]] == ["slower"] * 2


def test_nothing_to_compare_is_exit_code_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write(tmp_path / "a"), write(tmp_path / "b", cases=[making.case(n=256)])
    code, out, err = run_cli(capsys, a, b)
    assert (code, out) == (4, "")
    assert err.count("\n") == 1
    there = write(tmp_path / "c", machine="there")
    code, out, err = run_cli(capsys, a, there)
    assert (code, err) == (4, "")
    assert "2 not comparable" in out
    code, out, _ = run_cli(capsys, a, there, "--json")
    assert code == 4
    assert [line["reason"] for line in json.loads(out)["lines"]] == ["other machines: here and there"] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "missing"], "missing is not a run: it has no measurements.csv"),
        (["a", "a", "--metrics", "latencyy"], "unknown metric 'latencyy'; did you mean 'latency'? valid: latency, "),
        (["a", "a", "--metrics", ","], "unknown metric ''; valid: latency"),
        (["a", "foreign"], "foreign columns and was left untouched"),
        (["a"], "Missing argument 'b'."),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str],
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "measurements.csv").write_text("a,b\n1,2\n")
    code, out, err = run_cli(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_contended_run_decides_nothing_and_says_so_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Flash at n = 256 was 24 times too slow and known to 0.1 %: it is no regression."""
    a = write(tmp_path / "a", spread=0.001)
    with Store.open(tmp_path / "b", metrics=("latency",)) as run:
        for case in CASES:
            reading = Reading(
                metric="latency", value=24.0, ci_low=2.0, ci_high=290.0, samples=40,
                note="contended: the canary took 12× its best (48 ms against 4); stopped: converged at ±0.1 %",
            )  # fmt: skip
            run.append([making.row(case, reading, machine="here")], {"latency": [24.0] * 40})
    (line, _) = compare(a, tmp_path / "b")
    assert (line.verdict, line.contended) == (
        "inconclusive", "run B was not quiet: the canary took 12× its best (48 ms against 4)"
    )  # fmt: skip
    assert line.ratio == pytest.approx(24, rel=0.01)
    assert cli.main(["compare", str(a), str(tmp_path / "b")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("CONTENDED: 2 of 2 comparisons were measured while the machine had other work")
    assert "2 inconclusive" in out
    assert "inconclusive: run B was not quiet: the canary took 12×" in out
    assert cli.main(["compare", str(a), str(a)]) == 0
    assert "CONTENDED" not in capsys.readouterr().out

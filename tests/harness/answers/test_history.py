"""A case over commits and time: which rows are meant, what is told of them, and what is drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import making
import pytest

from harness import cli
from harness.answers.history import Wanted
from harness.check import baseline
from harness.check.deterministic import METRICS, Facts
from harness.door.history import history
from harness.errors import NothingToCompare, UsageError
from harness.store import merging
from harness.store.contention import contended
from harness.store.record import Reading
from harness.store.runs import Store, StoreError

CASE = making.case(attention="anchor", backend="sdpa", n=4096, m=64)


def write(
    folder: Path, day: int, ms: float, *, commit: str = "", machine: str = "here", why: str = "", flops: float = 10.0,
    **changes: Any,
) -> Path:  # fmt: skip
    """A run of one case on a day."""
    case = replace(CASE, **changes)
    latency = Reading(metric="latency", value=ms, ci_low=ms * 0.99, ci_high=ms * 1.01, samples=20)
    readings = [contended(latency, why, factor=2.0), Reading(metric="flops", value=flops, samples=1)]
    with Store.open(folder, metrics=("latency",)) as run:
        rows = [
            replace(
                making.row(case, reading, machine=machine), time_utc=f"2026-01-{day:02}T00:00:00Z",
                commit=commit or f"c{day:02}", run_id=folder.name,
            )
            for reading in readings
        ]  # fmt: skip
        run.append(rows, {})
        run.write_json("environment.json", {"schema": 1, "run_id": folder.name, "machine": machine})
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Twelve runs, the last six a quarter slower."""
    for day in range(1, 13):
        write(tmp_path / "results" / f"run{day:02}", day, (4.0 if day < 7 else 5.0) + 0.01 * (day % 3))
    return tmp_path / "results"


def test_a_step_is_found_and_its_commits_are_named(results: Path) -> None:
    (line,) = history("anchor n=4096", results).lines
    assert [point.commit for point in line.points] == [f"c{day:02}" for day in range(1, 13)]
    (step,) = line.steps
    assert (step.at, line.commits(step)) == (6, ("c06", "c07"))
    assert step.ratio == pytest.approx(1.25, rel=0.01)


def test_what_is_printed(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["history", "anchor n=4096", str(results)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "latency (ms) of anchor:sdpa n=4096 m=64 b=1 h=2 d=16 float32 forward core cpu on here"
    assert lines[1] == f"2026-01-01 00:00  c01  4.01 (3.97 to 4.05)  {results / 'run01'}"
    assert lines[7].startswith("  ── step ×1.249 (worse, p = 0.00")
    assert lines[7].endswith("): git log c06..c07")
    assert lines[-1] == "1 step in 12 points; 1 % of histories that only vary show one"
    assert cli.main(["history", "anchor n=4096", str(results), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["false_rate"] == 0.01
    assert [(step["before"], step["after"]) for step in document["lines"][0]["steps"]] == [("c06", "c07")]


def test_results_is_where_it_looks(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(results.parent)
    assert cli.main(["history", "anchor"]) == 0
    assert "12 points" in capsys.readouterr().out


def test_few_points_have_no_verdict(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, 4.0)
    write(tmp_path / "b", 2, 9.0)
    found = history("anchor", tmp_path)
    assert repr(found).endswith("no verdict: 2 quiet points; a step is sought from 10 on")


def test_contended_points_are_shown_and_not_judged(results: Path) -> None:
    for day in range(13, 25):
        write(results / f"run{day}", day, 50.0, why="others had 1.9 of 2 cores")
    (line,) = history("anchor", results).lines
    assert (len(line.points), len(line.quiet), len(line.steps)) == (24, 12, 1)
    assert repr(history("anchor", results)).count("  contended  ") == 12


def test_deterministic_figures_step_at_every_change(tmp_path: Path) -> None:
    for day, flops in enumerate((10, 10, 12), 1):
        write(tmp_path / f"r{day}", day, 1.0, flops=flops)
    (line,) = history("anchor", tmp_path, metric="flops").lines
    assert [(step.at, line.commits(step)) for step in line.steps] == [(2, ("c02", "c03"))]
    assert "every change is one" in repr(history("anchor", tmp_path, metric="flops"))


def test_an_option_at_its_default_is_found_in_cases_that_leave_it_out(
    tmp_path: Path, catalogue: dict[str, dict]
) -> None:
    write(tmp_path / "a", 1, 1.0)
    write(tmp_path / "b", 1, 2.0, options="init=paper")
    for asked, values in (("init=sharp", [1.0]), ("init=paper", [2.0]), ("scale=1", [1.0, 2.0]), ("nope=1", None)):
        if values is None:
            with pytest.raises(NothingToCompare):
                history(f"anchor {asked}", tmp_path)
            continue
        found = history(f"anchor {asked}", tmp_path).lines
        assert sorted(point.value for line in found for point in line.points) == values


def test_machines_and_cases_are_lines_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, 1.0)
    write(tmp_path / "b", 2, 1.0, machine="there")
    write(tmp_path / "c", 3, 1.0, m=16)
    assert len(history("anchor", tmp_path).lines) == 3
    assert len(history("anchor m=64", tmp_path).lines) == 2
    assert len(history(CASE.case_id, tmp_path).lines) == 2


def test_a_merged_run_beside_its_parts_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, 1.0)
    write(tmp_path / "b", 2, 1.0, n=8192)
    merging.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert [len(line.points) for line in history("anchor", tmp_path).lines] == [1, 1]


def test_baselines_and_histories_of_the_gate_are_read(tmp_path: Path) -> None:
    readings = {name: Reading(metric=name, value=1.5, samples=1, note="sequence=ab; output=1x2") for name in METRICS}
    facts = Facts(
        readings=readings, definition={"fields": "abc", "size": 2.5, "projections": [0.5]}, toolchain="torch 2"
    )  # fmt: skip
    measured = [(CASE, facts, [1.0, 1.1, 1.2])]
    write(tmp_path / "run", 1, 1.0)
    baseline.write(tmp_path / "baseline.csv", baseline.rows_of(measured, machine="here", commit="base"))
    for commit in ("one", "two"):
        baseline.append(tmp_path / "history.csv", measured, machine="here", commit=commit)
    (line,) = history("anchor n=4k", tmp_path).lines
    assert [point.commit for point in line.points] == ["c01", "base", "one", "two"]
    (alone,) = history("anchor", tmp_path / "history.csv").lines
    assert [point.value for point in alone.points] == [1.1, 1.1]
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(StoreError, match="foreign columns"):
        baseline.append(tmp_path / "other.csv", measured, machine="here", commit="x")
    assert (tmp_path / "other.csv").read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_it_is_drawn(kind: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / f"history.{kind}"
    assert cli.main(["history", "anchor", str(results), "--out", str(target)]) == 0
    assert f"drew {target}" in capsys.readouterr().err
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF-"}[kind]
    assert target.read_bytes().startswith(begins)


def test_the_figure_has_a_point_a_commit_and_a_level_a_side(results: Path) -> None:
    figure: Any = history("anchor", results).figure()
    (axes,) = figure.axes
    assert len(axes.lines) == 12
    assert [text.get_text() for text in axes.texts if text.get_text()[0].isdigit()][:2] == ["4.01", "5.01"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a benchmark begins with its variant"),
        ("n=4096", "a benchmark begins with its variant"),
        ("anchor forwrd", "unknown word of a benchmark 'forwrd'; did you mean 'forward'?"),
        ("anchor n=many", "n: "),
        ("anchor n=1k,2k", "n= takes one number"),
    ],
)
def test_words_that_name_no_case_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        Wanted.parse(text)


def test_what_is_not_there_is_said(results: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingToCompare, match="these runs hold anchor"):
        history("flash", results)
    with pytest.raises(UsageError, match="unknown metric in these runs 'energy'"):
        history("anchor", results, metric="energy")
    with pytest.raises(StoreError, match="is not a run"):
        history("anchor", tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"a figure is written as \.png, \.svg or \.pdf"):
        history("anchor", results).save(tmp_path / "x.gif")


def test_options_of_a_case_are_words_too(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, 1.0, options="causal=true;init=paper")
    write(tmp_path / "b", 2, 1.0)
    assert len(history("anchor init=paper causal=true", tmp_path).lines) == 1
    assert len(history("anchor", tmp_path).lines) == 2

"""`harness runs`: the list and its verbs, what each prints, asks and refuses."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from stored import Told, stored

from harness import cli
from harness.door.measure import under_name
from harness.errors import UsageError


@pytest.fixture
def harness(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line: (exit code, stdout, stderr)."""

    def call(*words: object) -> tuple[int, str, str]:
        code = cli.main([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


def a_run(
    folder: Path, *, ms: float = 1.0, machine: str = "here-2c-000000", sizes: tuple[int, ...] = (64, 128)
) -> Path:
    return stored(folder, [Told("flash", n=n, ms=ms * n, machine=machine) for n in sizes]).folder


def test_the_list_tells_each_run(harness: Any, tmp_path: Path) -> None:
    one, other = a_run(tmp_path / "results" / "one"), a_run(tmp_path / "results" / "deep" / "two")
    assert harness("runs", "tag", one, "paper", "quiet")[:2] == (0, f"{one}  paper, quiet\n")
    code, out, err = harness("runs", tmp_path / "results")
    assert (code, err) == (0, "")
    head, rule, *lines = out.splitlines()
    assert head.split() == ["run", "when", "(UTC)", "device", "commit", "cases", "ok", "size", "tags"]
    assert set(rule) == {"─"}
    (line,) = [line for line in lines if line.startswith("one")]
    assert line.split()[:6] == ["one", "2026-01-01", "00:00", "cpu", "c0ffee", "2"]
    assert line.endswith("paper,quiet")
    assert any(line.startswith("deep/two") for line in lines)
    document = json.loads(harness("runs", tmp_path / "results", "--json")[1])
    assert {run["name"]: run["tags"] for run in document["runs"]} == {"one": ["paper", "quiet"], "deep/two": []}
    assert {run["path"] for run in document["runs"]} == {str(one), str(other)}


def test_the_list_is_of_results_and_tells_what_cannot_be_read(
    harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert harness("runs")[0] == 2
    (tmp_path / "results").mkdir()
    assert harness("runs")[0] == 4
    (a_run(tmp_path / "results" / "one") / "environment.json").write_text("{")
    code, out, _ = harness("runs")
    assert code == 0
    assert "one: results/one/environment.json is damaged" in out


def test_tags_are_taken_away(harness: Any, tmp_path: Path) -> None:
    run = a_run(tmp_path / "one")
    harness("runs", "tag", run, "a,b")
    assert harness("runs", "tag", run, "--remove", "a,b")[1] == f"{run}  no tags\n"
    assert json.loads(harness("runs", "tag", run, "c", "--json")[1]) == {"run": str(run), "tags": ["c"]}


def test_deleting_asks(harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(tmp_path / "one")
    code, _, err = harness("runs", "rm", run)
    assert (code, run.exists()) == (2, True)
    assert "nobody is there to answer; add --yes" in err
    for answer, gone in (("\n", False), ("n\n", False), ("y\n", True)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        code, out, err = harness("runs", "rm", run)
        assert f"delete {run} (3 files, " in err
        assert (code, out, run.exists()) == (0, f"deleted {run}\n" if gone else "", not gone)


def test_deleting_several_looks_at_all_before_the_first_goes(harness: Any, tmp_path: Path) -> None:
    one, two = a_run(tmp_path / "one"), a_run(tmp_path / "two")
    (two / "notes.txt").write_text("mine")
    assert harness("runs", "rm", one, two, "--yes")[0] == 2
    assert one.exists()
    (two / "notes.txt").unlink()
    assert json.loads(harness("runs", "rm", one, two, "--yes", "--json")[1]) == {"deleted": [str(one), str(two)]}


def test_merge_writes_one_run(harness: Any, tmp_path: Path) -> None:
    one, two = a_run(tmp_path / "one"), a_run(tmp_path / "two", sizes=(128, 256))
    code, out, _ = harness("runs", "merge", one, two, "--out", tmp_path / "both")
    assert (code, out) == (
        0,
        f"{tmp_path / 'both'}/  3 cases of 2 runs; 1 older ones of the same cases were left out\n",
    )
    assert harness("show", tmp_path / "both")[0] == 0
    assert harness("runs", "merge", one, two)[2] == "harness: merge needs --out, the folder of the new run\n"


def test_diff_tells_what_differs(harness: Any, tmp_path: Path) -> None:
    one = stored(tmp_path / "one", [Told("flash", n=64)], environment={"schema": 1, "environment": {"torch": "1"}})
    two = stored(tmp_path / "two", [Told("flash", n=128)], environment={"schema": 1, "environment": {"torch": "2"}})
    code, out, _ = harness("runs", "diff", one.folder, two.folder)
    assert code == 0
    assert [line.split() for line in out.splitlines()[:3:2]] == [
        ["environment", "A", "B"],
        ["environment.torch", "1", "2"],
    ]
    assert out.splitlines()[-2:] == ["sweep: no difference", "0 cases in both, 1 in A alone, 1 in B alone"] or (
        out.splitlines()[-1] == "0 cases in both, 1 in A alone, 1 in B alone"
    )
    document = json.loads(harness("runs", "diff", one.folder, two.folder, "--json")[1])
    assert document["differences"] == [
        {"document": "environment", "key": "environment.torch", "a": "1", "b": "2"}
    ]  # fmt: skip


def test_validate_ends_with_1_where_a_run_fails(harness: Any, tmp_path: Path) -> None:
    run = a_run(tmp_path / "one")  # without samples, machine or run_id in its environment
    code, out, _ = harness("runs", "validate", run)
    assert code == 1
    assert out.startswith(f"failed  {run}\n")
    assert "schema: environment.json does not tell run_id" in out
    assert out.endswith("0 of 1 runs pass\n")
    document = json.loads(harness("runs", "validate", tmp_path, "--json")[1])
    assert (document["ok"], [one["run"] for one in document["runs"]]) == (False, [str(run)])
    assert {"schema", "samples"} <= {fault["check"] for fault in document["runs"][0]["faults"]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tga", "x"], "unknown verb 'tga'; did you mean 'tag'?"),
        (["lst"], "lst is no folder"),
        (["tag", "{run}"], "harness runs tag RUN TAG...: 1 given, 2 needed"),
        (["tag", "{run}", "a b"], "is no tag"),
        (["rm", "{run}", "--out", "x"], "--out belongs to harness runs merge, not to rm"),
        (["--yes"], "--yes belongs to harness runs rm, not to a list"),
        (["diff", "{run}"], "diff takes two runs, not 1"),
        (["validate", "{run}/nowhere"], "is not a run"),
        (["merge", "{run}"], "1 given, 2 needed"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: list[str], said: str, harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = a_run(tmp_path / "results" / "one")
    code, out, err = harness("runs", *(word.format(run=run) for word in words))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_a_folder_that_is_called_as_a_verb_is_listed_by_its_path(
    harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    a_run(tmp_path / "diff" / "one")
    assert harness("runs", "./diff")[0] == 0


# Several runs for the commands that read them


def test_show_and_plot_take_several_runs_and_folders_of_runs(harness: Any, tmp_path: Path) -> None:
    one, two = a_run(tmp_path / "r" / "one"), a_run(tmp_path / "r" / "two", machine="there-8c-111111", sizes=(64,))
    for words in ((one, two), (tmp_path / "r",)):
        code, out, _ = harness("show", *words)
        assert code == 0
        assert all(machine in out for machine in ("here-2c-000000", "there-8c-111111"))
    code, out, _ = harness("show", one, two, "--machine", "there-8c-111111")
    assert (code, "here-2c" in out) == (0, False)
    code, out, _ = harness("plot", one, two, "--figure", "memory", "--format", "svg", "--out", tmp_path / "figures")
    assert code == 0
    assert len(out.splitlines()) == 2  # machines are never in one figure


def test_compare_takes_folders_of_runs_and_several_others(harness: Any, tmp_path: Path) -> None:
    a, b = a_run(tmp_path / "r" / "a", sizes=(64,)), a_run(tmp_path / "r" / "b", sizes=(128,))
    c = a_run(tmp_path / "c", ms=2.0)
    code, out, _ = harness("compare", tmp_path / "r", c)
    assert (code, out.count("inconclusive  ")) == (0, 2)
    code, out, _ = harness("compare", c, a, b, "--json")
    assert code == 0
    assert [one["b"] for one in json.loads(out)["comparisons"]] == [str(a), str(b)]


def test_compare_of_partly_overlapping_runs_tells_verdicts_first_and_counts_the_rest(
    harness: Any, tmp_path: Path
) -> None:
    a, b = a_run(tmp_path / "a", sizes=(64, 128, 256, 512)), a_run(tmp_path / "b", sizes=(64, 1024))
    lines = harness("compare", a, b)[1].splitlines()
    assert lines[0].startswith("inconclusive   flash:reference n=64 ")
    assert lines[2] == "4 missing, 1 inconclusive"
    assert lines[3] == (
        "3 missing: run B lacks this case or metric; such as flash:reference n=128 b=1 h=2 d=16 float32 forward core"
    )
    assert lines[4].startswith("1 missing: run A lacks this case or metric; flash:reference n=1024 ")


def test_compare_holds_figures_of_one_machine_against_each_other(harness: Any, tmp_path: Path) -> None:
    here, there = "here-2c-000000", "there-8c-111111"
    for side, factor in (("a", 1.0), ("b", 2.0)):
        a_run(tmp_path / side / "x", ms=factor, machine=here)
        a_run(tmp_path / side / "y", ms=10 * factor, machine=there)
    code, out, _ = harness("compare", tmp_path / "a", tmp_path / "b")
    assert code == 0
    assert out.count("×2.000") == 4


# A name for a run


def test_a_name_is_a_folder_under_results(tmp_path: Path) -> None:
    assert under_name("paper-2", out=None) == Path("results/paper-2")
    assert under_name(None, out=tmp_path) == tmp_path
    for name in ("", " ", "a/b", "..", ".hidden", "a\nb"):
        with pytest.raises(UsageError, match="--name takes the name of a folder"):
            under_name(name, out=None)
    with pytest.raises(UsageError, match="are two folders"):
        under_name("a", out=tmp_path)


def test_run_takes_a_name(harness: Any) -> None:
    assert "--name a and --out b are two folders" in harness("run", "--name", "a", "--out", "b")[2]

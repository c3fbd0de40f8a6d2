"""`harness recommend` as a user types it: which stored rows are meant, exit codes, JSON, measuring what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stored import Told, stored

from harness.cli import main

SIZES = (1024, 4096)
TOLD = [
    *(Told("flash", n=n, ms=n / 100) for n in SIZES),
    *(Told("anchor", n=n, m=64, ms=n / 1000, error=0.8) for n in SIZES),
    *(Told("flash", n=n, ms=n / 50, phase="train") for n in SIZES),
    Told("anchor", n=1024, m=64, ms=0.5, error=0.3, options="init=paper"),
]
VARIANTS = str(Path(__file__).parents[1] / "variants.py")
LINE = ("--heads", "2", "--head-dim", "16")


@pytest.fixture(scope="module", autouse=True)
def _ready(catalogue: dict[str, dict]) -> None:
    """The catalogue is in the cache: no command of these tests has to find it out."""


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with one run under results/."""
    monkeypatch.chdir(tmp_path)
    stored(tmp_path / "results" / "a", TOLD)
    return tmp_path / "results"


@pytest.fixture
def harness(capsys: pytest.CaptureFixture[str]) -> Any:
    """`harness recommend WORDS`: (exit code, stdout, stderr)."""

    def call(*words: object) -> tuple[int, str, str]:
        code = main(["recommend", *map(str, words)])
        caught = capsys.readouterr()
        return code, caught.out, caught.err

    return call


def test_it_reads_every_run_under_results_and_measures_nothing(harness: Any, results: Path) -> None:
    code, out, err = harness("--n", "4k", *LINE, "--budget-ms", "50")
    assert (code, err) == (0, "")
    assert out.startswith("flash (exact) keeps the budget at n = 4096: 41.0 ms (40.6 to 41.4).\n")
    assert [path.name for path in results.iterdir()] == ["a"]


def test_nothing_within_the_limits_is_exit_4_and_names_the_nearest(harness: Any, results: Path) -> None:
    code, out, _ = harness("--n", "4096", *LINE, "--budget-ms", "1")
    assert code == 4
    assert "Nothing that was measured meets this at n = 4096.\nNearest: anchor m=64, 4.10 ms" in out


def test_the_usual_phase_is_taken_unless_another_is_asked_for(harness: Any, results: Path) -> None:
    assert "forward, float32" in harness("--n", "4k", *LINE)[1]
    code, out, _ = harness("--n", "4k", *LINE, "--phase", "train")
    assert code == 0
    assert "flash (exact) is the only candidate at n = 4096: 81.9 ms" in out
    code, _, err = harness("--n", "4k", *LINE, "--phase", "backward", "--no-measure")
    assert code == 4
    assert "no stored row has phase backward; stored: forward, train; add --measure" in err


def test_options_of_a_variant_choose_its_rows(harness: Any, results: Path) -> None:
    code, out, _ = harness("--n", "1024", *LINE, "--set", "anchor.init=paper", "--attention", "anchor,flash", "--json")
    assert code == 0
    (answer,) = json.loads(out)["answers"]
    assert [(c["attention"], c["latency_ms"], c["approximation_error"]) for c in answer["ranking"]] == [
        ("anchor", 0.5, 0.3), ("flash", 10.24, 0.0)
    ]  # fmt: skip


def test_an_axis_that_cannot_be_guessed_is_asked_for(harness: Any, tmp_path: Path) -> None:
    run = tmp_path / "r"
    stored(run, [Told("flash", n=64, dtype="float16"), Told("flash", n=64, dtype="float64")])
    code, out, err = harness("--n", "64", run)
    assert (code, out) == (2, "")
    assert "hold dtype = float16, float64: choose one with --dtype" in err
    assert harness("--n", "64", "--dtype", "float16", run)[0] == 0


def test_problems_are_never_ranked_together(harness: Any, tmp_path: Path) -> None:
    """The quick causal row is no answer to who asks for none, nor the other way round."""
    told = [
        Told("flash", n=64, ms=4.0), Told("anchor", n=64, m=8, ms=3.0),
        Told("flash", n=64, ms=1.0, options="causal=true"), Told("linear", n=64, ms=2.0, options="causal=true"),
        Told("flash", n=64, ms=0.5, options="kv_heads=1"),
    ]  # fmt: skip
    run = tmp_path / "r"
    stored(run, told)

    def ranking(*words: str) -> tuple[str, list[tuple[str, float]]]:
        code, out, err = harness("--n", "64", run, *LINE, *words, "--json")
        assert (code, err) == (0, "")
        (answer,) = json.loads(out)["answers"]
        return answer["setting"]["problem"], [(c["attention"], c["latency_ms"]) for c in answer["ranking"]]

    assert ranking() == ("default", [("anchor", 3.0), ("flash", 4.0)])
    assert ranking("--causal") == ("causal", [("flash", 1.0), ("linear", 2.0)])
    assert ranking("--kv-heads", "1") == ("kv_heads=1", [("flash", 0.5)])
    assert ranking("--kv-heads", "2") == ("default", [("anchor", 3.0), ("flash", 4.0)])  # as many as there are heads
    code, out, err = harness("--n", "64", run, *LINE, "--kv-tokens", "32", "--no-measure")
    assert (code, out) == (4, "")
    assert "no stored row has problem kv_tokens=32; stored: default, kv_heads=1, causal; add --measure" in err
    assert "causal, without other masks; other machines" in " ".join(
        harness("--n", "64", run, *LINE, "--causal")[1].split()
    )


def test_a_problem_that_cannot_be_guessed_is_asked_for(harness: Any, tmp_path: Path) -> None:
    run = tmp_path / "r"
    stored(run, [Told("flash", n=64, options="causal=true"), Told("flash", n=64, options="kv_heads=1")])
    code, out, err = harness("--n", "64", run, *LINE)
    assert (code, out) == (2, "")
    assert "are of kv_heads=1, causal: choose one with --causal, --kv-heads or --kv-tokens" in err


def test_two_machines_get_an_answer_each(harness: Any, tmp_path: Path) -> None:
    run = tmp_path / "r"
    stored(run, [Told("flash", n=64, machine="a-2c-000000"), Told("full", n=64, ms=9, machine="b-2c-000000")])
    code, out, _ = harness("--n", "64", run, "--json")
    assert code == 0
    answers = json.loads(out)["answers"]
    assert [(a["setting"]["machine"], a["choice"]["attention"]) for a in answers] == [
        ("a-2c-000000", "flash"), ("b-2c-000000", "full")
    ]  # fmt: skip


def test_between_and_beyond_measured_sizes(harness: Any, results: Path) -> None:
    code, out, _ = harness("--n", "2k", *LINE, "results/a")
    assert code == 0
    assert out.startswith("anchor m=64 (an approximation) is the fastest at n = 2048: 2.05 ms")
    assert "interpolated between n = 1024 and 4096" in out.replace("\n  ", " ")
    code, out, _ = harness("--n", "64k", *LINE, "results/a")
    assert code == 4
    assert " ".join(out.split()).startswith(
        "n = 65536 lies outside what was measured (1024 to 4096), and nothing is extrapolated."
    )


def test_a_damaged_run_is_left_out_with_a_warning_and_refused_by_name(harness: Any, results: Path) -> None:
    (results / "b").mkdir()
    (results / "b" / "measurements.csv").write_text("a,b\n1,2\n")
    code, out, err = harness("--n", "4k", *LINE)
    assert code == 0
    assert "anchor m=64" in out
    assert "left out: results/b/measurements.csv has foreign columns" in err
    assert harness("--n", "4k", "results/b")[0] == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "recommend needs the number of tokens: --n, such as --n 16k"),
        (("--n", "1k,2k"), "recommend answers for one n at a time, not 1024, 2048"),
        (("--n", "x"), "n: 'x' is not valid"),
        (("--n", "1k", "--budget-ms", "0"), "--budget-ms takes a number, more than 0, not 0"),
        (("--n", "1k", "--budget-ms", "nan"), "--budget-ms takes a number, more than 0, not nan"),
        (("--n", "1k", "--max-error", "-1"), "--max-error takes a number, 0 or more, not -1"),
        (("--n", "1k", "--max-memory", "inf"), "--max-memory takes a number, more than 0, not inf"),
        (("--n", "1k", "--metrics", "latency"), "recommend chooses the metrics itself"),
        (("--n", "1k", "nowhere"), "nowhere is not a run"),
        (("--n", "1k", "--attention", "ancor"), "unknown attention 'ancor'; did you mean 'anchor'?"),
        (("--n", "1k", "--attention", "anchor:refrence"), "did you mean 'reference'?"),
        (("--n", "1k", "--phase", "fwd"), "unknown phase 'fwd'"),
    ],
)
def test_what_is_not_valid_is_one_line(harness: Any, words: tuple[str, ...], told: str) -> None:
    code, out, err = harness(*words)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1


def test_nothing_stored_and_nothing_to_be_measured(
    harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = harness("--n", "64", "--no-measure")
    assert (code, out) == (4, "")
    assert "measure them: harness recommend --n 64 --measure" in err


@pytest.mark.slow
def test_what_no_run_holds_is_measured_once(harness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--n", "64", "--attention", "full,flash", *LINE, "--budget", "0.05", "--patience", "0")
    code, out, err = harness(*words, "--quiet", "--json")
    assert code == 0
    document = json.loads(out)
    measured = Path(document["measured"])
    assert measured.parent == Path("results")
    assert f"measuring 2 cases that no stored run holds, into {measured}" in err
    (answer,) = document["answers"]
    assert {c["attention"] for c in answer["ranking"]} == {"full", "flash"}
    assert all(c["exact"] and c["latency_ms"] > 0 and c["peak_memory_mib"] > 0 for c in answer["ranking"])
    code, out, _ = harness(*words, "--measure", "--json")  # everything is there now
    assert (code, json.loads(out)["measured"]) == (0, None)
    assert [path.name for path in Path("results").iterdir()] == [measured.name]

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
    assert out.startswith("Exact: flash keeps the budget at n = 4096: 41.0 ms (40.6 to 41.4).\n")
    assert [path.name for path in results.iterdir()] == ["a"]


def test_the_default_of_an_option_finds_the_rows_that_leave_it_out(harness: Any, results: Path) -> None:
    """What a row's case is called by leaves a default out, however it was asked for."""
    words = ("--n", "1024", *LINE, "--attention", "anchor", "--json")
    ms = {}
    for given in ("anchor.init=sharp", "anchor.scale=1", "anchor.bias=no", "anchor.init=paper"):
        code, out, err = harness(*words, "--set", given)
        assert (code, err) == (0, "")
        (answer,) = json.loads(out)["answers"]
        ms[given] = [one["latency_ms"] for one in answer["ranking"]]
    assert ms["anchor.init=sharp"] == [1.024]
    assert ms["anchor.init=paper"] == [0.5]
    assert ms["anchor.scale=1"] == ms["anchor.bias=no"] == [0.5, 1.024]


def test_nothing_within_the_limits_is_exit_4_and_names_the_nearest(harness: Any, results: Path) -> None:
    code, out, _ = harness("--n", "4096", *LINE, "--budget-ms", "1")
    assert code == 4
    assert "Nothing that was measured meets this at n = 4096.\nNearest: anchor m=64, 4.10 ms" in out


def test_the_usual_phase_is_taken_unless_another_is_asked_for(harness: Any, results: Path) -> None:
    assert "forward, float32" in harness("--n", "4k", *LINE)[1]
    code, out, _ = harness("--n", "4k", *LINE, "--phase", "train")
    assert code == 0
    assert "Exact: flash is the only one at n = 4096: 81.9 ms" in out
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
    assert out.startswith("Exact: flash is the only one at n = 2048: 20.5 ms")
    assert "Not exact: anchor m=64 is the only one at n = 2048: 2.05 ms" in " ".join(out.split())
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
        (("--n", "1k", "--task", "recall"), "--task needs --min-accuracy or --max-task-error, as in --task recall"),
        (("--n", "1k", "--max-task-error", "0.1"), "--max-task-error needs --task"),
        (("--n", "1k", "--task", "darcy", "--max-task-error", "0"), "--max-task-error takes a number, more than 0"),
        (
            ("--n", "1k", "--task", "darcy", "--max-task-error", "0.1", "--min-accuracy", "0.9"),
            "--min-accuracy or --max-task-error, not both",
        ),
        (("--n", "1k", "--min-accuracy", "0.9"), "--min-accuracy needs --task"),
        (("--n", "1k", "--task", "recall", "--min-accuracy", "95"), "--min-accuracy takes a share, more than 0 and at"),
        (
            ("--scope", "model", "--resolution", "224,448"),
            "recommend answers for one resolution at a time, not 224, 448",
        ),
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


# What models are known to reach


def test_an_accuracy_is_asked_for_by_its_task(harness: Any, tmp_path: Path) -> None:
    told = [
        Told("flash", n=1024, ms=10.0), Told("nystrom", n=1024, m=16, ms=0.5, error=0.1),
        *(Told("anchor", n=1024, m=m, ms=m / 16, error=1.5) for m in (16, 32, 64)),
    ]  # fmt: skip
    run = stored(tmp_path / "r", told).folder
    words = ("--n", "1024", *LINE, run)
    code, out, _ = harness(*words, "--task", "recall", "--min-accuracy", "0.95", "--json")
    assert code == 0
    (answer,) = json.loads(out)["answers"]
    assert [one["label"] for one in answer["ranking"]] == ["anchor:reference", "anchor:reference", "flash:reference"]
    assert [one["m"] for one in answer["ranking"]] == [16, 32, None]
    assert {one["task"] for one in answer["known"]} == {
        "recall", "digits", "legend-segmentation", "legend-detection", "darcy", "poisson"
    }  # fmt: skip
    over = [
        (one["mean"] - one["floor_mean"]) * (-1 if one["metric"] == "relative_l2" else 1)
        for one in answer["known"] if one["floor_mean"] is not None
    ]  # fmt: skip
    assert len(over) >= 7
    assert min(over) > 0.04
    reasons = {(one["attention"], one["m"]): one["reasons"] for one in answer["refused"]}
    assert reasons["anchor", 64] == ["nothing is known of its recall"]
    assert reasons["nystrom", 16][0].startswith("recall (items=56 shapes=96 steps=500, n=64): top1 0.2")
    out = " ".join(harness(*words, "--m", "16", "--attention", "anchor,flash")[1].split())
    assert (
        "Known of anchor m=16: digits (n=65): top1 0.923 (0.883 to 0.956 over 20 seeds), attention removed 0.531" in out
    )
    code, out, _ = harness(*words, "--task", "poisson", "--max-task-error", "0.36", "--json")
    (answer,) = json.loads(out)["answers"]
    assert [(one["attention"], one["m"]) for one in answer["ranking"]] == [("anchor", 16)]
    code, out, err = harness(*words, "--task", "darcy", "--min-accuracy", "0.9")
    assert (code, out) == (2, "")
    assert "darcy is told by an error, relative_l2: give --max-task-error with --task darcy" in err
    code, out, err = harness(*words, "--task", "recall", "--max-task-error", "0.1")
    assert "recall is told by an accuracy, top1: give --min-accuracy with --task recall" in err
    code, out, err = harness(*words, "--task", "recal", "--min-accuracy", "0.95")
    assert (code, out) == (2, "")
    assert "unknown task 'recal'; did you mean 'recall'?" in err


# Whole models


def models(folder: Path) -> Path:
    """Two released models at two resolutions, and a trained one, in one run."""
    from making import case, row

    from harness.store.record import Reading
    from harness.store.runs import Store

    with Store.open(folder, metrics=("latency",)) as store:
        for name, h in (("anchorformer_tiny", 3), ("anchorformer_small", 6)):
            for side, n in ((224, 198), (448, 786)):
                for attention, m, ms in (("flash", None, 4.0), ("anchor", 30, 3.0)):
                    of = case(
                        attention=attention, scope="model", h=h, d=64, n=n, m=m,
                        options=f"model={name};resolution={side}",
                    )  # fmt: skip
                    store.append([row(of, Reading(metric="latency", value=ms * h * n / 198, samples=9))], {})
        of = case(attention="flash", scope="model", h=4, d=16, n=65, options="data=digits;task=classification")
        store.append([row(of, Reading(metric="latency", value=1.0, samples=9))], {})
    return folder


def test_stored_rows_of_models_are_found(harness: Any, tmp_path: Path) -> None:
    run = models(tmp_path / "r")

    def asked(*words: object) -> list[tuple[str, int, float]]:
        code, out, err = harness("--scope", "model", *words, run, "--json")
        assert code == 0, err
        answers = json.loads(out)["answers"]
        assert all(a["choice"]["attention"] == ("anchor" if a["choice"]["m"] else "flash") for a in answers)
        return [(a["setting"]["scope"], a["setting"]["h"], a["choice"]["latency_ms"]) for a in answers]

    assert asked() == [("model anchorformer_tiny", 3, 9.0)]
    assert asked("--resolution", "448") == [("model anchorformer_tiny", 3, pytest.approx(9.0 * 786 / 198))]
    assert asked("--model", "anchorformer_small") == [("model anchorformer_small", 6, 18.0)]
    assert asked("--n", "65") == [("model classification digits", 4, 1.0)]
    both = [("model anchorformer_tiny", 3, 9.0), ("model anchorformer_small", 6, 18.0)]
    assert sorted(asked("--n", "198")) == sorted(both)
    trained = models(tmp_path / "t")
    kept = [line for line in (trained / "measurements.csv").read_text().splitlines() if "resolution" not in line]
    (trained / "measurements.csv").write_text("".join(f"{line}\n" for line in kept))
    code, out, _ = harness("--scope", "model", trained)  # nothing else was said, and its rows have one n
    assert code == 0
    assert out.startswith("Exact: flash is the only one at n = 65: 1.00 ms")
    code, out, err = harness("--scope", "model", "--model", "anchorformer_base", run)
    assert (code, out) == (4, "")
    assert "no stored row has scope model anchorformer_base; stored: model anchorformer" in err
    code, out, _ = harness("--scope", "model", "--resolution", "896", run)
    assert code == 4
    assert " ".join(out.split()).startswith("n = 3138 lies outside what was measured (198 to 786)")


# A decision that can be used


def test_a_policy_holds_what_is_fastest_among_equals(harness: Any, tmp_path: Path) -> None:
    told = [
        *(Told("flash", n=n, ms=n / 1000, backend="torch") for n in SIZES),
        Told("full", n=1024, ms=0.5), Told("full", n=4096, ms=40.0), Told("linear", n=4096, ms=0.1),
        Told("anchor", n=4096, m=64, ms=2.0), Told("anchor", n=4096, m=64, ms=1.0, backend="sdpa"),
        Told("flash", n=1024, ms=3.0, phase="train", backend="torch"), Told("full", n=1024, ms=6.0, phase="train"),
    ]  # fmt: skip
    run, out = stored(tmp_path / "r", told).folder, tmp_path / "deep" / "policy.json"
    code, text, err = harness("--emit", out, run)
    assert (code, err) == (0, "")
    assert f"{out}: 4 classes of sizes on here-2c-000000 (cpu)" in text
    document = json.loads(out.read_text())
    assert (document["format"], document["schema"], document["by"]) == ("attention-policy", 1, "latency")
    assert document["runs"] == [str(run)]
    held = {(one["among"], one["m"], one["n"], one["phase"]): one for one in document["classes"]}
    assert {key: (one["choice"], one["fallback"]) for key, one in held.items()} == {
        ("exact", None, 1024, "forward"): ("full:reference", "flash:torch"),
        ("exact", None, 4096, "forward"): ("flash:torch", "full:reference"),
        ("exact", None, 1024, "train"): ("flash:torch", "full:reference"),
        ("anchor", 64, 4096, "forward"): ("anchor:sdpa", "anchor:reference"),
    }
    train = held["exact", None, 1024, "train"]
    assert (train["margin"], train["margin_low"]) == (pytest.approx(2.0), pytest.approx(2 * 0.99 / 1.01))
    assert (train["b"], train["h"], train["d"], train["device"], train["dtype"]) == (1, 2, 16, "cpu", "float32")
    assert harness("--emit", out, run, "--phase", "train")[0] == 0  # an older policy is replaced
    assert len(json.loads(out.read_text())["classes"]) == 1
    code, text, _ = harness("--emit", out, run, "--n", "4096", *LINE)
    assert code == 0
    assert text.startswith("Exact: flash is the fastest at n = 4096")
    assert "4 classes of sizes" in text
    code, text, _ = harness("--emit", out, run, "--json")
    assert json.loads(text)["policy"] == {"path": str(out), "classes": 4, "places": ["here-2c-000000 (cpu)"]}


def test_what_is_no_policy_is_not_replaced_and_machines_are_not_mixed(harness: Any, tmp_path: Path) -> None:
    mine = tmp_path / "notes.json"
    mine.write_text('{"format": "mine"}')
    two = [Told(name, n=64, machine=f"{m}-2c-000000") for name in ("flash", "full") for m in "ab"]
    run = stored(tmp_path / "r", two).folder
    for words, told in (
        (("--emit", mine, run), "exists and is no policy; it was left untouched"),
        (("--emit", tmp_path, run), "is a folder; name a file"),
        (
            ("--emit", tmp_path / "p.json", run),
            "a policy is for one machine, and these rows of cpu are of a-2c-000000, b",
        ),
    ):
        code, out, err = harness(*words)
        assert (code, out) == (2, ""), words
        assert told in err
    assert mine.read_text() == '{"format": "mine"}'
    alone = stored(tmp_path / "s", [Told("flash", n=64), Told("anchor", n=64, m=16)]).folder
    code, _, err = harness("--emit", tmp_path / "p.json", alone)
    assert code == 4
    assert "there is nothing to decide" in err
    assert not (tmp_path / "p.json").exists()

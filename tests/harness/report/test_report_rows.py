"""The rows of a page and what is derived for its charts: nothing lost, nothing mixed, the figures' own numbers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from stored import KINDS, Told, stored

from harness.answers.candidates import Stock
from harness.answers.recommend import Wish, recommend
from harness.figures import Run
from harness.figures._lines import switches
from harness.figures._style import lines_of
from harness.figures.roofline import points
from harness.figures.speedup import ratios
from harness.report.accuracies import of_runs
from harness.report.answers import of_settings
from harness.report.looks import CONTRAST, _contrast, series_looks, size_looks
from harness.report.rows import NUMBERS, TEXTS, gather
from harness.store.selection import FILE, PANEL, metric_rows, settings


def test_every_row_of_every_run_is_there_once(run: Run, hostile: Run) -> None:
    rows = gather([run, hostile])
    assert len(rows.frame) == len(run.frame) + len(hostile.frame)
    columns = rows.columns()
    assert set(columns) == {*TEXTS, *NUMBERS}
    assert all(len(column.array) == len(rows.frame) for column in columns.values())


def test_settings_never_mix_runs_machines_phases_or_dtypes(run: Run, hostile: Run) -> None:
    rows = gather([run, hostile])
    assert [setting.run for setting in rows.settings] == [0, 0, 0, 0, 1]
    for at, setting in enumerate(rows.settings):
        own = rows.frame[rows.frame["setting"] == at]
        assert set(own["run"]) == {setting.run}
        assert all(set(own[name]) == {value} for name, value in setting.values.items())


def test_runs_of_one_machine_are_ranked_together_and_each_case_is_the_newest(tmp_path: Path) -> None:
    old = stored(tmp_path / "old", [Told("flash", n=64, ms=9.0), Told("full", n=64, ms=5.0)])
    new = stored(tmp_path / "new", [Told("flash", n=64, ms=2.0), Told("anchor", n=64, m=16, ms=1.0)])
    new.frame["time_utc"], new.frame["run_id"] = "2026-02-01T00:00:00Z", "new"
    other = stored(tmp_path / "other", [Told("flash", n=64, ms=0.1, machine="there-8c-111111")])
    rows = gather([new, other, old])
    assert [group.of for group in rows.groups] == [(0, 2), (1,)]
    assert [setting.run for setting in rows.settings] == [0, 1]
    assert len(rows.frame) == rows.listed == len(old.frame) + len(new.frame) + len(other.frame)
    timed = rows.frame[rows.frame["metric"] == "latency"]
    drawn = timed[timed["setting"] == 0]
    assert dict(zip(drawn["attention"], drawn["run"], strict=True)) == {"flash": 0, "anchor": 0, "full": 2}
    assert timed.loc[timed["value"] == 9.0, "setting"].isna().all()  # listed, and neither ranked nor drawn
    answers = of_settings(rows.groups, rows.settings, kinds=KINDS)
    assert [one["series"] for one in answers[0]["64|all"]["ranking"]] == ["anchor", "flash", "full"]
    assert [one["ms"] for one in answers[0]["64|all"]["ranking"]] == [1.0, 2.0, 5.0]
    assert any("run" in line for line in answers[0]["64|all"]["unknown"])  # it says that it mixes runs
    speed = drawn.set_index("attention")["speed"]
    assert speed["anchor"] == 2.0


def test_speed_ups_are_those_of_the_figure(run: Run) -> None:
    rows = gather([run])
    for at, (_, group) in enumerate(settings(metric_rows(run.frame, "latency"), (*FILE, *PANEL))):
        expected = ratios(group, run)
        assert expected is not None
        expected = expected[(expected["status"] == "ok")].set_index("case_id")
        own = rows.frame[(rows.frame["setting"] == at) & rows.frame["speed"].notna()].set_index("case_id")
        assert sorted(own.index) == sorted(expected.index)
        for name, column in (("speed", "value"), ("speed_low", "ci_low"), ("speed_high", "ci_high")):
            assert own[name].to_dict() == expected[column].to_dict()


def test_intensities_are_those_of_the_figure(run: Run) -> None:
    rows, expected = gather([run]).frame, points(run)
    own = rows[rows["intensity"].notna()].set_index("case_id")["intensity"].to_dict()
    assert own == expected[expected["status"] == "ok"].set_index("case_id")["intensity"].to_dict()


def test_cases_that_failed_as_a_whole_are_marked(run: Run) -> None:
    frame = gather([run]).frame
    whole = frame[frame["whole"] == 1]
    assert set(whole["status"]) == {"oom", "timeout", "unavailable", "unsupported"}
    assert set(frame.loc[frame["metric"] == "energy", "whole"]) == {0}


def test_crossings_come_from_stored_probes(tmp_path: Path) -> None:
    told = [
        *(Told("flash", n=n, ms=n**2 / 1e4) for n in (256, 1024, 4096)),
        *(Told("anchor", n=n, m=64, ms=n * 0.05) for n in (256, 1024, 4096)),  # equal at n = 500
        *(Told("full", n=n, ms=n**2 / 1e3) for n in (256, 1024)), Told("full", n=4096, status="oom"),
        *(Told("nystrom", n=n, m=64, ms=n * 1e-4) for n in (256, 1024, 4096)),
        *(Told("linformer", n=n, m=64, ms=1e4, half=None) for n in (256, 1024, 4096)),
    ]  # fmt: skip
    (setting,) = gather([stored(tmp_path / "r", told)]).settings
    found = {series: crossing for series, _, crossing in setting.crossings}
    assert setting.base == "flash"
    assert (found["anchor"].kind, found["anchor"].low, found["anchor"].high) == ("found", 256, 1024)
    assert found["anchor"].n == pytest.approx(500, rel=0.01)
    assert {name: crossing.kind for name, crossing in found.items()} == {
        "anchor": "found", "full": "never", "nystrom": "always", "linformer": "never"
    }  # fmt: skip


def test_where_the_base_does_not_fit_the_other_wins_and_errors_say_nothing(tmp_path: Path) -> None:
    told = [
        Told("flash", n=256, ms=1.0), Told("flash", n=1024, status="oom"), Told("flash", n=4096, status="error"),
        *(Told("anchor", n=n, m=64, ms=9.0) for n in (256, 1024, 4096)),
    ]  # fmt: skip
    (setting,) = gather([stored(tmp_path / "r", told)]).settings
    ((_, _, crossing),) = setting.crossings
    assert (crossing.kind, [probe.n for probe in crossing.probes]) == ("found", [256, 1024])


def test_the_answers_are_those_of_recommend(tmp_path: Path) -> None:
    told = [
        Told("flash", n=1024, ms=9.0), Told("anchor", n=1024, m=16, error=0.5), Told("none", n=1024, ms=0.1),
        Told("anchor", n=1024, m=64, ms=2, error=0.4),
    ]  # fmt: skip
    run = stored(tmp_path / "r", told)
    (answers,) = of_settings(gather([run]).groups, gather([run]).settings, kinds=KINDS)
    assert sorted(answers) == ["1024|16", "1024|64", "1024|all", "1024|exact"]
    for key, wish in {"all": {}, "64": {"m": (64,)}, "exact": {"max_error": 0.0}}.items():
        (expected,) = recommend(Stock([run], kinds=KINDS), Wish(n=1024, **wish))  # pyright: ignore[reportArgumentType]
        got = answers[f"1024|{key}"]
        assert (got["headline"], got["reasons"], got["unknown"], got["kept"]) == (
            expected.headline,
            expected.reasons,
            expected.unknown,
            expected.kept,
        )
        assert [line["text"] for line in got["lines"]] == expected.headline.split("\n")
        assert [one["ms"] for one in got["ranking"]] == [one.time.ms for one in expected.ranking]


def test_looks_are_the_figures_and_can_be_seen_on_a_dark_page(run: Run) -> None:
    from matplotlib.colors import to_rgb

    looks = {look["series"]: look for look in series_looks(run.frame)}
    assert list(looks) == ["full", "flash", "xformers", "linformer", "nystrom", "anchor"]
    assert (looks["anchor"]["light"], looks["anchor"]["symbol"]) == ("#d55e00", "diamond")
    assert all(_contrast(to_rgb(look["dark"])) >= CONTRAST for look in looks.values())
    assert size_looks(run.frame)["64"]["dash"] == "solid"
    assert all(part.endswith("px") for part in size_looks(run.frame)["16"]["dash"].split(","))


def test_a_point_by_another_backend_than_most_of_its_line_says_so(tmp_path: Path) -> None:
    """The same points as the figures draw hollow: within a metric, variant, m and setting, failures aside."""
    chosen = {256: "reference", 1024: "reference", 4096: "chunked", 16384: "chunked", 65536: "reference"}
    told = [
        *(Told("anchor", n=n, m=64, ms=n / 1e3, backend=backend) for n, backend in chosen.items()),
        *(Told("anchor", n=n, m=16, ms=n / 1e3, backend="reference") for n in (256, 1024)),
        Told("anchor", n=4096, m=16, status="oom", backend="chunked"),
        *(Told("flash", n=n, ms=n / 1e2, backend="torch") for n in chosen),
    ]  # fmt: skip
    run = stored(tmp_path / "r", told)
    frame = gather([run]).frame
    switched = frame[frame["switched"] != ""]
    assert set(switched["metric"]) == {"latency", "peak_memory"}
    assert {(a, n, m) for a, n, m in zip(switched["attention"], switched["n"], switched["m"], strict=True)} == {
        ("anchor", 4096, 64), ("anchor", 16384, 64)
    }  # fmt: skip
    assert set(switched["switched"]) == {"by another backend: chunked, else by reference"}
    latency = metric_rows(run.frame, "latency")
    for _, _, m, line in lines_of(latency):
        drawn = set(line.loc[switches(line), "n"])
        own = switched[(switched["metric"] == "latency") & (switched["m"] == m)] if m else switched[:0]
        assert drawn == set(own["n"])


def test_a_run_in_which_everything_failed_has_settings_and_no_answers(tmp_path: Path) -> None:
    run = stored(tmp_path / "r", [Told("flash", n=64, status="error", note="broken")])
    rows = gather([run])
    assert [setting.base for setting in rows.settings] == [None]
    assert of_settings(rows.groups, rows.settings, kinds=KINDS) == [{}]
    assert all(math.isnan(value) for value in rows.frame["speed"])


def test_seeds_of_a_trained_model_are_one_candidate_and_every_row_is_listed(trained: Run) -> None:
    rows = gather([trained])
    assert rows.listed == len(trained.frame) < len(rows.frame)
    assert sorted(rows.frame["case_id"][: rows.listed]) == sorted(trained.frame["case_id"])
    (setting,) = rows.settings
    assert setting.seeds
    drawn = rows.frame[(rows.frame["setting"] == 0) & (rows.frame["metric"] == "latency")].set_index("series")
    assert sorted(drawn.index) == ["anchor init=orthogonal logits=cosine", "anchor init=paper", "flash"]
    flash = drawn.loc["flash"]
    assert (flash["value"], flash["ci_low"], flash["ci_high"]) == pytest.approx((3.0, 1.9, 4.1))
    assert "median of 3 seeds" in flash["note"]
    ((answer,),) = [[own["65|all"]] for own in of_settings(rows.groups, rows.settings, kinds=KINDS)]
    assert [one["series"] for one in answer["ranking"]] == [
        "anchor init=paper", "anchor init=orthogonal logits=cosine", "flash"
    ]  # fmt: skip
    assert [(line["series"], line["m"]) for line in answer["lines"]] == [("flash", None), ("anchor init=paper", 16)]
    assert answer["lines"][1]["text"].startswith("Not exact: anchor init=paper m=16 is the fastest at n = 65: ")
    own = [line for line in answer["kept"] if f"; {trained.folder}." in line]  # beside the shipped studies
    assert own[0].startswith(
        "Known of anchor init=paper m=16: classification digits (n=65): top1 0.610 (0.600 to 0.620 over 3 seeds), "
        "exact 0.910"
    )


def test_runs_without_several_seeds_are_as_they_are(run: Run) -> None:
    rows = gather([run])
    assert rows.listed == len(rows.frame) == len(run.frame)
    assert not any(setting.seeds for setting in rows.settings)
    assert len(Stock([run], kinds=KINDS).frame) == len(run.frame)


def test_accuracies_are_means_over_seeds_and_problems_stay_apart(trained: Run) -> None:
    found = {(one["problem"], one["attention"] + one["own"]): one for one in of_runs([trained], ["mine"])}
    assert sorted(found) == [
        ("classification digits", "anchor init=orthogonal logits=cosine"),
        ("classification digits", "anchor init=paper"),
        ("classification digits", "flash"), ("recall items=12", "anchor init=paper"),
        ("recall items=56", "anchor init=paper"),
    ]  # fmt: skip
    flash = found["classification digits", "flash"]
    assert (flash["mean"], flash["m"], flash["runs"]) == (pytest.approx(0.91), None, ["mine"])
    assert flash["values"] == pytest.approx([0.90, 0.91, 0.92])
    assert flash["half"] == pytest.approx(4.303 * 0.01 / math.sqrt(3), rel=1e-3)

"""`harness.read`: one run, several, a folder of runs; machines apart; tables for papers; choosing rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stored import Told, stored

import harness
from harness import cli
from harness.door.choosing import Only
from harness.errors import NothingToCompare
from harness.store.runs import StoreError

ROOT = Path(__file__).parents[3]
HERE, THERE = "here-2c-000000", "there-8c-111111"


def ceiling(machine: str, **rates: float) -> dict[str, Any]:
    found = {"cpu": {"copy_gb_per_s": 10.0, "matmul_tflops": rates}}
    return {"schema": 1, "machine": machine, "device": "cpu", "ceilings": found, "declared": {"anchor": {"flops_n": 1}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs of one machine, one of another, and what is none."""
    flash = [Told("flash", n=n, ms=n / 100, error=0.0) for n in (1024, 2048)]
    anchor = [Told("anchor", n=n, m=64, ms=n / 400, error=0.8) for n in (1024, 2048)]
    stored(tmp_path / "runs" / "a", flash, environment=ceiling(HERE, float32=1.0))
    stored(tmp_path / "runs" / "deep" / "b", anchor, environment=ceiling(HERE, bfloat16=2.0))
    other = [
        Told("flash", n=1024, ms=3.0, machine=THERE),
        Told("full", n=1024, machine=THERE, status="oom", note="9 GB"),
    ]
    stored(tmp_path / "runs" / "c", other, environment=ceiling(THERE, float32=4.0))
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "measurements.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    return tmp_path / "runs"


def test_every_run_below_a_folder(folder: Path) -> None:
    with pytest.warns(UserWarning, match="left out: .*broken/measurements.csv has foreign columns"):
        run = harness.read(folder)
    assert [path.relative_to(folder).as_posix() for path in run.paths] == ["a", "c", "deep/b"]
    assert run.folder == folder.resolve()
    assert len(run.frame) == 15
    assert [one.folder.name for one in run.runs] == ["a", "c", "b"]
    with pytest.raises(ValueError, match=r"holds 3 runs; take one of \.runs"):
        _ = run.environment
    assert repr(run).startswith("3 runs of 6 cases (5 ok, 1 oom) on ")


def test_machines_stay_apart_and_runs_of_one_come_together(folder: Path) -> None:
    run = harness.read([folder / "a", folder / "deep" / "b", folder / "c"])
    first, second = run.table("latency")
    assert {first.setting["machine"], second.setting["machine"]} == {HERE, THERE}
    (here,) = run.table("latency", machine=HERE)
    assert [row[0] for row in here.rows] == ["flash:reference", "anchor:reference"]
    with pytest.raises(ValueError, match=f"takes 2 figures of these rows .*{THERE}"):
        run.plot("latency")
    figure = run.plot("latency", machine=HERE)
    labels = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert labels == {"flash", "anchor", "m = 64"}


def test_ceilings_of_several_runs_are_put_together(folder: Path) -> None:
    from harness.figures.roofline import roof_of

    run = harness.read([folder / "a", folder / "deep" / "b", folder / "c"])
    roofs = [
        roof_of(run._drawn, "cpu", dtype, machine=machine)
        for machine, dtype in ((HERE, "float32"), (HERE, "bfloat16"), (THERE, "float32"), (THERE, "bfloat16"))
    ]
    assert roofs == [(0.01, 1.0), (0.01, 2.0), (0.01, 4.0), None]
    assert run._drawn.environment["declared"] == {"anchor": {"flops_n": 1}}


def test_the_newest_of_two_runs_of_one_case_counts(tmp_path: Path) -> None:
    for name, ms in (("one", 1.0), ("two", 2.0)):
        stored(tmp_path / name, [Told("flash", n=64, ms=ms)])
        path = tmp_path / name / "measurements.csv"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("2026-01-01", "2026-01-02" if ms == 1.0 else "2026-01-01"), encoding="utf-8")
    (table,) = harness.read([tmp_path / "one", tmp_path / "two"]).table()
    assert [cell.value for cell in table.cells.values()] == [1.0]


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is not a run: it has no measurements\.csv"):
        harness.read(tmp_path)
    with pytest.raises(StoreError, match="nowhere is not a run"):
        harness.read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="not an empty list"):
        harness.read([])


def test_tables_for_a_paper(folder: Path) -> None:
    tables = harness.read(folder / "c").table("latency", rows="attention")
    assert len(tables) == 1
    assert tables.to_markdown().splitlines()[2:] == [
        "| variant | m | n=1024 |", "| --- | ---: | ---: |", "| full:reference |  | oom |",
        "| flash:reference |  | 3.00 ±1.0% |",
    ]  # fmt: skip
    latex = tables.to_latex()
    assert r"  flash:reference &  & 3.00 $\pm$1.0\% \\" in latex
    assert latex.count(r"\toprule") == latex.count(r"\end{table}") == 1
    assert '<td title="9 GB">oom</td>' in tables._repr_html_()
    assert tables.as_json()[0]["rows"][1]["cells"][0]["ci_low"] == pytest.approx(2.97)
    assert tables.to_csv().splitlines()[1].endswith("oom")
    assert "flash:reference" in repr(tables)


def test_names_that_mean_something_to_a_document_are_escaped(tmp_path: Path) -> None:
    run = stored(tmp_path / "r", [Told("my_att", n=64, options="a=<b>&|50%")])
    run = stored(tmp_path / "s", [Told("my_att", n=64, options="a=<b>&|50%"), Told("my_att", n=64, options="a=c_{}")])
    tables = harness.read(run.folder).table()
    assert r"my_att:reference a=\<b>&\|50%" in tables.to_markdown()
    assert r"my\_att:reference a=\textless{}b\textgreater{}\&|50\%" in tables.to_latex()
    assert r"a=c\_\{\}" in tables.to_latex()
    assert "my_att:reference a=&lt;b&gt;&amp;|50%" in tables._repr_html_()


@pytest.mark.parametrize(
    ("which", "told"),
    [
        ({"n": 4096}, "--n 4096 is not in this run; it holds 1024, 2048"),
        ({"heads": 3}, "--heads 3 is not in this run; it holds 2"),
        ({"attention": "anchr"}, "unknown attention in this run 'anchr'"),
        ({"machine": "x"}, "unknown machine in this run 'x'"),
        ({"atention": "flash"}, "unknown axis to choose rows by 'atention'; did you mean 'attention'?"),
    ],
)
def test_rows_that_are_not_there(folder: Path, which: Only, told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("?", r"\?")):
        harness.read(folder / "a").table(**which)


def test_whose_time_is_asked_as_the_commands_ask(folder: Path, tmp_path: Path) -> None:
    run = harness.read([folder / "a", folder / "deep" / "b"])
    for ask in (run.plot, run.draw, run.report):
        with pytest.raises(ValueError, match="unknown clock 'hots'; did you mean 'host'"):
            ask(by="hots")
    assert run.plot(by="eager").legends  # on a CPU it is one and the same
    with pytest.raises(ValueError, match="unknown clock"):
        harness.recommend(run, n=1024, heads=2, head_dim=16, by="hots")


def test_an_empty_run(tmp_path: Path) -> None:
    stored(tmp_path / "r", [])
    run = harness.read(tmp_path / "r")
    assert repr(run) == f"Run of 0 cases (no rows yet): {tmp_path / 'r'}"
    for ask in (run.table, run.report, run.plot):
        with pytest.raises(NothingToCompare):
            ask()


def test_show_and_table_are_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    path = ROOT / "results" / "cpu" / "sweep"
    words = ["--metric", "latency,peak_memory", "--phase", "train", "--n", "1k,4k", "--rows", "attention,dtype"]
    assert cli.main(["show", str(path), *words]) == 0
    tables = harness.read(path).table(
        ["latency", "peak_memory"], phase="train", n=[1024, "4k"], rows=["attention", "dtype"]
    )  # fmt: skip
    assert capsys.readouterr().out == f"{tables!r}\n"

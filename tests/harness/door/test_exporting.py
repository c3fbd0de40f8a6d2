"""Rows as one file for other tools: nothing is lost on the way, and no file of somebody else's is replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import making
import pandas
import pytest
from stored import Told, stored

import harness
from harness import cli
from harness.door import exporting
from harness.store import runs as store
from harness.store.record import COLUMNS, Reading
from harness.store.runs import Store

HOSTILE = "=cmd()|'x'"


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Two runs in a folder."""
    stored(tmp_path / "all" / "a", [Told("flash", n=64, ms=1.5), Told("full", n=64, status="oom", note="needs 9 GB")])
    with Store.open(tmp_path / "all" / "b", metrics=("latency",)) as run:
        case = making.case(attention="anchor", m=16)
        run.append(
            [making.row(case, Reading(metric="latency", value=0.1 + 0.2, note=HOSTILE))], {"latency": [0.3, 0.4]}
        )
        run.write_json(store.ENVIRONMENT, {"schema": 1, "run_id": "run", "machine": "here"})
    return tmp_path / "all"


def test_csv_reads_back_as_the_rows(two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "all.csv"
    assert cli.main(["export", str(two), "--to", "csv", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    read, frame = pandas.read_csv(out, keep_default_na=False, na_values={"value": ""}), harness.read(two).frame
    assert list(read.columns) == list(COLUMNS)
    assert len(read) == len(frame)
    assert read["value"].tolist()[-1] == 0.1 + 0.2
    assert read["note"].tolist()[-1] == frame["note"].tolist()[-1] == f"'{HOSTILE}"


def test_parquet_keeps_types_and_environments(two: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    run = harness.read(two)
    target = run.export(tmp_path / "all.parquet")
    read = pandas.read_parquet(target)
    pandas.testing.assert_frame_equal(read, run.frame, check_dtype=False, check_like=False)
    assert {name: str(read[name].dtype) for name in ("n", "m", "value")} == {
        name: str(run.frame[name].dtype) for name in ("n", "m", "value")
    }
    assert read["m"].isna().sum() == run.frame["m"].isna().sum()
    assert read.attrs["environments"]["run"] == {"schema": 1, "run_id": "run", "machine": "here"}
    again = run.export(tmp_path / "all.parquet", attention="anchor")  # its own kind is replaced
    assert set(pandas.read_parquet(again)["attention"]) == {"anchor"}


def test_samples_are_a_file_of_their_own(two: Path, tmp_path: Path) -> None:
    target = harness.read(two).export(tmp_path / "samples.csv", to="csv", samples=True, attention="anchor")
    read = pandas.read_csv(target)
    assert list(read.columns) == ["run_id", "case_id", "metric", "index", "value"]
    assert read["value"].tolist() == [0.3, 0.4]


def test_the_file_is_named_after_the_run(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", str(two / "a"), "--to", "csv", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["file"], document["bytes"]) == ("a.csv", (tmp_path / "a.csv").stat().st_size)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--to", "excel"], 2, "unknown kind of file 'excel'; valid: parquet, csv"),
        (["--to", "csv", "--attention", "linear"], 2, "unknown attention in this run 'linear'"),
        (["--to", "csv", "--out", "{mine}"], 2, "exists and is no csv of ours; it was left untouched"),
        (["--to", "csv", "--out", "{folder}"], 2, "is a folder; name a file"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: list[str], code: int, said: str, two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("my own table\n")
    given = [word.format(mine=mine, folder=tmp_path) for word in words]
    assert cli.main(["export", str(two), *given]) == code
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert said in told.err
    assert mine.read_text() == "my own table\n"


def test_a_missing_pyarrow_names_its_extra(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found: Any = exporting.find_spec
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "pyarrow" else found(name))
    assert cli.main(["export", str(two), "--out", str(tmp_path / "x.parquet")]) == 5
    assert "pip install 'attention-harness[export]'" in capsys.readouterr().err
    assert not (tmp_path / "x.parquet").exists()

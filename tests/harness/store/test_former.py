"""Rows of earlier versions, `flag=True`, are found under today's name by whoever reads, resumes or compares."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import making
import pytest

from harness.answers.compare import compare
from harness.store import runs as store
from harness.store.former import is_former
from harness.store.record import Case, canonical_options
from harness.store.runs import Store

NOW = making.case(attention="performer", m=16, options="orthogonal=false;seedless=true")
OLD = making.case(attention="performer", m=16, options="orthogonal=False;seedless=True")
PLAIN = making.case(n=128)


def written(folder: Path, *cases: Case, times: float = 1.5) -> Path:
    with Store.open(folder, metrics=making.METRICS) as run:
        for case in cases:
            run.append(making.rows(case, value=times), {"latency": [times] * 12})
    return folder


def test_true_and_false_are_written_small() -> None:
    assert canonical_options({"flag": True, "other": False, "text": "True"}) == "flag=true;other=false;text=True"
    assert (
        NOW.case_id != OLD.case_id == hashlib.sha256(json.dumps(asdict(OLD), sort_keys=True).encode()).hexdigest()[:12]
    )


@pytest.mark.parametrize(
    ("options", "former"),
    [
        ("flag=True", True), ("a=1;flag=False;b=2", True), ("flag=true", False), ("name=Trueish", False), ("", False),
        ("task=digits;recipe.ema=True", False), ("recipe.ema=True;task=digits", False), ("multitask=1;flag=True", True),
    ],
)  # fmt: skip
def test_which_rows_are_former(options: str, former: bool) -> None:
    assert is_former(options) == former


def test_a_former_case_is_read_with_its_samples_under_todays_name(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", OLD, PLAIN)
    frame = store.read(folder)
    assert list(frame["case_id"].unique()) == [NOW.case_id, PLAIN.case_id]
    assert set(frame["options"]) == {NOW.options, ""}
    samples = store.read_samples(folder)
    assert samples["case_id"].value_counts().to_dict() == {NOW.case_id: 12, PLAIN.case_id: 12}


def test_resuming_knows_a_former_case_and_loses_none_of_its_samples(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", PLAIN, OLD)
    with Store.open(folder, metrics=making.METRICS, resume=True) as run:
        assert {NOW.case_id, PLAIN.case_id} <= run.done
    assert len(store.read_samples(folder)) == 24


def test_a_former_run_is_compared_with_one_of_today(tmp_path: Path) -> None:
    lines = compare(written(tmp_path / "a", OLD), written(tmp_path / "b", NOW, times=3.0))
    assert [(line.case_id, line.ratio, line.verdict) for line in lines] == [(NOW.case_id, 2.0, "slower")]

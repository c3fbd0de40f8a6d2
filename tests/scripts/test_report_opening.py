"""The report of 100 000 rows stays under 12 MB; how long it takes to open is the script's to record, not a test's."""

from __future__ import annotations

from types import ModuleType

import pytest
from scripting import load

from harness import report
from harness.store.record import COLUMNS

MOST_BYTES = 12_000_000


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load("report_opening")


def test_made_up_rows_are_rows(script: ModuleType) -> None:
    frame = script.made_up(1000).frame
    assert len(frame) == 1000
    assert list(frame.columns)[: len(COLUMNS)] == list(COLUMNS)
    assert frame["value"].nunique() == 1000
    assert not frame.duplicated(["case_id", "metric"]).any()


@pytest.mark.slow
def test_a_report_of_100_000_rows_stays_under_12_mb(script: ModuleType) -> None:
    run = script.made_up(100_000)
    assert len(run.frame) == 100_000
    assert len(report.build([run], kinds=script.kinds()).encode()) < MOST_BYTES

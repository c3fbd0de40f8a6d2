"""The report of 100 000 rows stays under 12 MB; how long it takes to open is the script's to record, not a test's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from harness import report
from harness.record import COLUMNS

SCRIPT = Path(__file__).parents[2] / "scripts" / "report_opening.py"
MOST_BYTES = 12_000_000


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report_opening", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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

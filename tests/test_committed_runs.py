"""Committed runs of one machine that share a case tell the same of it: what disagrees was disturbed, or is wrong."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from harness.store import runs as store
from harness.store.contention import reason

ROOT = Path(__file__).parents[1]
RUNS = sorted(path.parent for path in (ROOT / "results" / "cpu").glob(f"*/{store.MEASUREMENTS}"))
FACTOR = 1.3


def latencies(folder: Path) -> dict[tuple[str, str], Any]:
    rows: Any = store.read(folder).itertuples()
    return {(row.machine, row.case_id): row for row in rows if row.metric == "latency" and row.status == "ok"}


def shared() -> list[tuple[str, Any, Any]]:
    """(name, row, row) of every case that two runs measured on one machine."""
    tables = {folder.name: latencies(folder) for folder in RUNS}
    return [
        (f"{a}-{b}-{row.attention}-n{row.n}-m{row.m}-{row.phase}-{row.dtype}", row, tables[b][key])
        for a, b in itertools.combinations(tables, 2)
        for key, row in tables[a].items() if key in tables[b]
    ]  # fmt: skip


SHARED = shared()


@pytest.mark.parametrize(("one", "other"), [pytest.param(a, b, id=name) for name, a, b in SHARED])
def test_two_runs_agree_on_a_case(one: Any, other: Any) -> None:
    """Within FACTOR; a contended figure claims less, and its interval need only meet the other's."""
    if reason(one.note) or reason(other.note):
        assert max(one.ci_low, other.ci_low) <= min(one.ci_high, other.ci_high) * FACTOR
        return
    ratio = one.value / other.value
    assert 1 / FACTOR <= ratio <= FACTOR, f"{one.value:.4g} ms in one run and {other.value:.4g} ms in the other"


def test_some_cases_are_shared() -> None:
    assert len(SHARED) >= 5

"""The script that shows what busy loops do: its tables count right; nothing is measured here."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripting import load


@pytest.fixture(scope="module")
def beside() -> ModuleType:
    return load("beside_loops")


@pytest.fixture
def told(beside: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Loops that burn nothing; how many ran beside each call."""
    beginnings: list[int] = []

    class Loop:
        def __init__(self, *command: Any, **how: Any) -> None:
            beginnings.append(1)

        def kill(self) -> None: ...

        def wait(self) -> None: ...

    monkeypatch.setattr(beside.subprocess, "Popen", Loop)
    return beginnings


def test_rows_are_held_against_the_quiet_median_of_their_case(
    beside: ModuleType, told: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = iter([1.0, 1.1, 0.9])
    rows = iter([
        (next(quiet), False), (1.1, False), (2.0, True), (next(quiet), False), (1.5, False), (0.5, True),
        (next(quiet), False), (1.0, False), (9.0, True),
    ])  # fmt: skip

    def measured(arguments: Any) -> list[tuple[str, float, bool]]:
        ms, marked = next(rows)
        return [("full n=256", ms, marked)]

    monkeypatch.setattr(beside, "measured", measured)
    lines = beside.sweep(["--n", "256"], runs=3)
    assert sum(told) == 3 * (0 + 1 + 2)
    assert [line.loops for line in lines] == [0, 1, 2] * 3
    assert [line.over_quiet for line in lines if line.loops == 1] == pytest.approx([1.1, 1.5, 1.0])
    table = list(beside.sweep_table(lines))
    assert table[2:] == [
        "| 0 | 3 | 100 % | 0 % | 0 | ×1.11 |", "| 1 | 3 | 67 % | 0 % | 1 | ×1.50 |",
        "| 2 | 3 | 0 % | 100 % | 0 | ×9.00 |",
    ]  # fmt: skip


def test_answers_are_near_refused_or_wrong(
    beside: ModuleType, told: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = iter([("found", 500), ("found", 520), ("found", 480), ("found", 700), ("refused", None), ("never", None)])

    def run(command: list[str], **how: Any) -> Any:
        kind, n = next(kinds)
        document = {"kind": kind, "n": n, "answer": kind}
        return subprocess.CompletedProcess(command, 3 if kind == "refused" else 0, json.dumps(document), "")

    monkeypatch.setattr(beside.subprocess, "run", run)
    answers = beside.crossover(["anchor", "flash"], runs=3)
    assert sum(told) == 3
    assert list(beside.crossover_table(answers))[2:] == ["| 0 | 3 | 3 | 0 | 0 |", "| 1 | 3 | 1 | 1 | 1 |"]


def test_ways_of_using_threads_are_held_against_themselves(
    beside: ModuleType, told: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measured(arguments: Any, environ: Any) -> list[tuple[str, float, bool]]:
        assert arguments[-2:] == ["--patience", "0"]
        alone = sum(told) % 2 == 0  # a loop is counted as it begins and as it ends
        return [("full", (1.0 if alone else 8.0) if not environ else (2.0 if alone else 2.2), False)]

    monkeypatch.setattr(beside, "measured", measured)
    monkeypatch.setattr(beside, "loops", lambda count: _counting(told, count))
    ways = beside.threads([], runs=1)
    table = list(beside.threads_table(ways))
    assert table[2] == "| as it is | 0 | ×1.00 | ×1.00 | ×1.00 |"
    assert table[3] == "| as it is | 1 | ×8.00 | ×8.00 | ×8.00 |"
    assert table[5] == "| passive wait | 1 | ×1.10 | ×1.10 | ×2.20 |"
    beside._write(tmp_path, "threads", ways, iter(table))
    with (tmp_path / "threads.csv").open() as file:
        assert [row["way"] for row in csv.DictReader(file)] == [way for way in beside.WAYS for _ in range(2)]
    assert (tmp_path / "threads.md").read_text().splitlines() == table


class _counting:
    """A loop that is counted while it is there."""

    def __init__(self, told: list[int], count: int) -> None:
        self.told, self.count = told, count

    def __enter__(self) -> None:
        if self.count:
            self.told.append(1)

    def __exit__(self, *failure: object) -> None:
        if self.count:
            self.told.append(1)


def test_a_run_is_read_with_its_marks(beside: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.store.record import Case, Reading, Row
    from harness.store.runs import Store

    facts = {"run_id": "r", "machine": "here", "commit": "", "time_utc": "2026-01-01T00:00:00Z"}

    def run(command: list[str], **how: Any) -> Any:
        assert command[:4] == [sys.executable, "-m", "harness", "run"]
        assert how["env"]["OMP_WAIT_POLICY"] == "PASSIVE"
        with Store.open(Path(command[command.index("--out") + 1]), metrics=("latency",)) as held:
            for n, note in ((64, ""), (128, "contended: others had 1 of 2 cores")):
                case = Case(
                    attention="full", backend="reference", scope="core", phase="forward", b=1, h=2, n=n, d=16, m=None,
                    dtype="float32", device="cpu",
                )  # fmt: skip
                held.append([Row.of(case, Reading(metric="latency", value=float(n), note=note), **facts)], {})

    monkeypatch.setattr(beside.subprocess, "run", run)
    found = beside.measured(["--n", "64,128"], environ={"OMP_WAIT_POLICY": "PASSIVE"})
    assert [(ms, marked) for _, ms, marked in found] == [(64.0, False), (128.0, True)]

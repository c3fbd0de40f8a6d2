"""The bytes table and the projection: what is committed is what the code sends, and both scripts count real calls."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch.distributed as dist
from scripting import load

import attentions
from attentions import parallel
from harness.answers.scaling import Assumptions, Call, project

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "results" / "cpu" / "parallel_bytes.csv"
PROJECTION = ROOT / "docs" / "scaling" / "projection.csv"


@pytest.fixture(scope="module")
def projecting() -> ModuleType:
    return load("parallel_projection")


@pytest.fixture(scope="module")
def table() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def eight_ranks(projecting: ModuleType) -> Iterator[int]:
    dist.init_process_group("fake", store=projecting._fake_store(), rank=3, world_size=8)
    yield 8
    dist.destroy_process_group()


def test_the_table_has_every_variant_phase_and_n(table: list[dict[str, str]]) -> None:
    script = load("parallel_bytes")
    assert list(table[0]) == list(script.COLUMNS)
    found = {(row["variant"].removesuffix(" (ring)"), int(row["n"]), row["phase"]) for row in table}
    assert found == set(script.cases())
    assert {int(row["n"]) for row in table} == {2**12, 2**16, 2**20}


def test_the_table_is_what_the_model_says_and_tcp_agrees(table: list[dict[str, str]]) -> None:
    for row in table:
        name = row["variant"].removesuffix(" (ring)")
        shape = {key: int(row[key]) for key in "bhndm"}
        work = attentions.Work(**shape, phase=row["phase"], options=attentions.spec(name).defaults)
        ranks, wire = int(row["ranks"]), float(row["wire_bytes_per_rank"])
        assert wire == round(parallel.volume(name, work, ranks=ranks).wire_bytes(ranks))
        calls = sum(map(int, re.findall(r"\d+", row["collectives"])))
        assert wire <= float(row["tcp_bytes_per_rank"]) <= wire + 2048 * (calls + 1)  # gloo's headers, and a barrier


def test_anchor_sends_the_same_at_every_n_and_the_ring_sixteen_times_as_much_for_sixteen(
    table: list[dict[str, str]],
) -> None:
    for phase in ("forward", "train"):
        sent = {
            name: [int(row["wire_bytes_per_rank"]) for row in table if (row["variant"], row["phase"]) == (name, phase)]
            for name in ("anchor", "flash (ring)")
        }
        assert len(set(sent["anchor"])) == 1
        assert sent["flash (ring)"][1:] == [16 * bytes_ for bytes_ in sent["flash (ring)"][:-1]]


@pytest.mark.parametrize("variant", ["anchor", "flash"])
def test_what_the_code_sends_in_simulation_is_what_is_projected(
    variant: str, projecting: ModuleType, eight_ranks: int
) -> None:
    call = Call(n=1 << 20)
    expected = project(variant, call, ranks=eight_ranks, assumed=Assumptions()).bytes_sent
    assert projecting.simulated_bytes(variant, call, eight_ranks) == expected


def test_a_projection_that_the_code_does_not_keep_fails(
    projecting: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(projecting, "RANKS", (8,))
    monkeypatch.setattr(projecting, "TOKENS", (1 << 20,))
    monkeypatch.setattr(projecting, "STYLES", {1 << 20: "-"})
    monkeypatch.setattr(sys, "argv", ["parallel_projection.py", str(tmp_path / "good")])
    assert projecting.main() == 0
    rows = list(csv.DictReader((tmp_path / "good" / "projection.csv").open(encoding="utf-8")))
    assert {row["kind"] for row in rows} == {"projection"}
    assert (tmp_path / "good" / "projection.png").stat().st_size > 10_000
    monkeypatch.setattr(projecting, "simulated_bytes", lambda *of: 1.0)
    monkeypatch.setattr(sys, "argv", ["parallel_projection.py", str(tmp_path / "bad")])
    assert projecting.main() == 1
    assert "the code sends 1.0" in capsys.readouterr().err


def test_the_committed_projection_follows_from_its_own_assumptions() -> None:
    with PROJECTION.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 8
    for row in rows:
        assumed = Assumptions(**{name: float(row[name]) for name in Assumptions.__dataclass_fields__})
        shape = {name: int(row[name]) for name in Call.__dataclass_fields__}
        found = project(row["variant"], Call(**shape), ranks=int(row["ranks"]), assumed=assumed)
        assert float(row["time_s"]) == found.time_s
        assert float(row["efficiency"]) == found.efficiency

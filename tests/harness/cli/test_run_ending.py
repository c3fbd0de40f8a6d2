"""What `harness run` prints once it has measured: the table, who is fastest, where the run is."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from stored import Told, stored

from harness.cli.run import _report
from harness.store import runs as store

RESULT = SimpleNamespace(wall_s=1.0, measuring_s=0.5)


def ending(folder: Path, capsys: pytest.CaptureFixture[str], *, as_json: bool = False) -> str:
    _report(folder, RESULT, store.read(folder), as_json=as_json)
    return capsys.readouterr().out


def test_a_run_ends_with_who_is_fastest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], catalogue: dict[str, dict]
) -> None:
    told = [Told("flash", n=64, ms=30.0), Told("anchor", n=64, m=16, ms=1.0)]
    folder = stored(tmp_path / "r", told).folder
    lines = ending(folder, capsys).splitlines()
    assert lines[-4:] == [
        "",
        "anchor m=16 is 30.0× (29.4 to 30.6) as fast as flash, the best exact one; it computes something else",
        "",
        f"{folder}/  figures: harness plot {folder}",
    ]
    document = json.loads(ending(folder, capsys, as_json=True))
    assert sorted(document) == ["measuring_s", "rows", "run", "statuses", "wall_s"]


def test_with_nothing_to_compare_it_ends_as_ever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], catalogue: dict[str, dict]
) -> None:
    folder = stored(tmp_path / "r", [Told("flash", n=64)]).folder
    out = ending(folder, capsys)
    assert "as fast as" not in out
    assert out.endswith(f"\n\n{folder}/  figures: harness plot {folder}\n")

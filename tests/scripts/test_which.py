"""The page "Which attention?" and its picture say what the committed runs say."""

from __future__ import annotations

import re
from pathlib import Path

import pandas
import pytest
from scripting import load

from harness.store import runs as store

ROOT = Path(__file__).parents[2]
script = load("which")
FOUND = script.parts()
TOLD = [*FOUND, *script.parts([script.CAUSAL])]
EXACT = ("full", "flash", "xformers")


def test_the_page_and_the_picture_are_of_the_committed_rows() -> None:
    assert script.PAGE.read_text(encoding="utf-8") == script.page(FOUND), "python scripts/which.py --write"
    assert script.drawn_as() == script.digest(FOUND), "python scripts/which.py --write"
    assert script.main([]) is None


@pytest.mark.parametrize("part", TOLD, ids=lambda part: f"{part.source.title}-{part.phase}")
def test_no_row_of_its_file_beats_what_a_line_names(part: object) -> None:
    """Read from the CSV without the code that chose: the named cases are there, and are the fastest of their sort."""
    rows = {}
    for file in part.source.files:  # type: ignore[attr-defined]
        frame = store.read(ROOT / file)
        frame = frame[(frame["metric"] == "latency") & (frame["status"] == "ok") & (frame["scope"] == "core")]
        for row in frame.itertuples():
            if (row.phase, row.dtype) == (part.phase, part.source.dtype):  # type: ignore[attr-defined]
                known = rows.setdefault((row.machine, row.case_id), row)  # of two runs of a machine the later counts
                rows[row.machine, row.case_id] = max(known, row, key=lambda one: one.time_utc)
    assert len(part.spots) >= 2  # type: ignore[attr-defined]
    for spot in part.spots:  # type: ignore[attr-defined]
        here = [row._replace(m=row.m if pandas.notna(row.m) else 0) for row in rows.values() if row.n == spot.n]
        problem = "causal=true" if part.source.problem == "causal" else ""  # type: ignore[attr-defined]
        here = [row for row in here if row.attention != "none" and row.options == problem]
        for one, sort in ((spot.exact, True), (spot.other, False)):
            own = [
                row.value for row in here if (row.attention in EXACT) == sort and not (row.m > 0 and row.m != script.M)
            ]
            assert (one is None) == (not own)
            assert one is None or one.time.ms == min(own)
        assert {row.case_id for row in here} >= set(spot.cases)
        assert len(spot.cases) == (spot.exact is not None) + (spot.other is not None)


def test_the_page_says_what_no_row_says() -> None:
    text = script.PAGE.read_text(encoding="utf-8")
    assert "Causal attention on a GPU or in training, other masks, dropout: no row." in text
    for file in {file for source in (*script.SOURCES, script.CAUSAL) for file in source.files}:
        frame = store.read(ROOT / file)
        causal = frame[frame["options"].str.contains("causal=true")]
        assert set(causal["phase"]) <= {"forward"}
        assert set(causal["device"]) <= {"cpu"}
    cited = set(re.findall(r"`(results/[^`]+)`", text))
    assert cited
    assert all((ROOT / path).is_file() for path in cited)


def test_readme_and_the_landing_page_show_the_picture() -> None:
    assert "](docs/which.svg)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "](which.svg)" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert "which.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")

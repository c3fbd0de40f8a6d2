"""docs/notebook.ipynb: ten cells, from nothing to a figure and a decision, run from the top."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from scripting import load

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        known = dict(os.environ)
        found = load("notebook").executed()
        assert dict(os.environ) == known
    return found.cells


def outputs(cell: Any, kind: str) -> list[str]:
    """What a cell shows, of one MIME type; text of a stream counts as text."""
    return [
        output.text if output.output_type == "stream" else output.data[kind] for output in cell.outputs
        if (output.output_type == "stream" and kind == "text/plain") or kind in output.get("data", {})
    ]  # fmt: skip


@pytest.mark.slow
def test_ten_cells_from_nothing_to_a_figure_and_a_decision(cells: list[Any]) -> None:
    assert len(cells) == 10
    (bar,) = [text for text in outputs(cells[1], "text/plain") if "left" in text]
    assert "15/15" in bar
    assert "\x1b" not in bar
    assert "<table>" in outputs(cells[2], "text/html")[0]
    assert len(outputs(cells[3], "image/png")[0]) > 10_000
    assert "| anchor:reference | 16 |" in outputs(cells[4], "text/plain")[0]
    assert "sigmoid_attention:reference" in outputs(cells[6], "text/html")[-1]
    assert re.search(
        r"anchor (beats|does not beat) flash|no crossover|no answer: it hangs", outputs(cells[7], "text/plain")[-1]
    )
    assert "n = 1024" in outputs(cells[8], "text/plain")[-1]
    assert "What this does not say:" in outputs(cells[8], "text/plain")[-1]


def test_the_kept_outputs_are_of_these_cells_and_of_no_ones_machine() -> None:
    """Whoever changes a cell runs it again: python scripts/notebook.py --write."""
    import nbformat

    notebook = nbformat.read(Path(load("notebook").PAGE), as_version=4)
    assert len(notebook.cells) == 10
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not [output for output in cell.outputs if output.output_type == "error"]
            assert not re.search(r"/(?:home|Users|root|work)/", str(cell.outputs))

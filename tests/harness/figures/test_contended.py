"""Tables and figures of a run whose machine was not quiet: they say so first, and ring the points."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from synthetic import DECLARED, ENVIRONMENT, write_run

from harness import figures
from harness.figures import latency, roofline, speedup
from harness.figures._sheet import DOUBT
from harness.store import runs as store
from harness.store import table

BUSY = "contended: others had 0.66 of 2 cores; stopped: converged"
SMALL: dict[str, Any] = {
    "sizes": (1024, 4096), "anchors": (16,), "phases": ("forward",), "dtypes": ("float32",),
    "variants": ("flash", "anchor"),
}  # fmt: skip


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "busy", note=BUSY, **SMALL)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "quiet", note="stopped: converged", **SMALL)


def words(sheet: figures.Sheet) -> str:
    out = io.StringIO()
    sheet.figure.savefig(out, format="svg")
    return " ".join(text.get_text() for text in sheet.figure.texts)


def rings(sheet: figures.Sheet) -> int:
    lines = [line for axes in sheet.figure.axes for line in axes.lines if line.get_markeredgecolor() == DOUBT]
    return sum(len(line.get_xdata()) for line in lines)  # type: ignore[arg-type]


def test_a_figure_says_first_that_its_points_are_contended_and_rings_them(busy: Path, quiet: Path) -> None:
    (sheet,) = latency.draw(figures.load(busy))
    told = words(sheet).replace("\n", " ")
    assert "CONTENDED: 4 of 4 points were measured while the machine had other work" in told
    assert told.index("CONTENDED") < told.index("Medians")
    assert rings(sheet) == 4
    (sheet,) = latency.draw(figures.load(quiet))
    assert "CONTENDED" not in words(sheet)
    assert rings(sheet) == 0


def test_a_speed_up_over_a_contended_base_is_contended(busy: Path, quiet: Path, tmp_path: Path) -> None:
    run = figures.load(quiet)
    flash = run.frame["attention"] == "flash"
    run.frame.loc[flash & (run.frame["metric"] == "latency"), "note"] = BUSY
    (sheet,) = speedup.draw(run)
    assert "CONTENDED: 2 of 2 points" in words(sheet).replace("\n", " ")
    assert rings(sheet) == 2
    assert run.samples(next(run.frame[flash].itertuples())) is None


def test_points_above_the_roof_are_told_as_an_error_of_the_ceilings(quiet: Path, tmp_path: Path) -> None:
    (sheet,) = roofline.draw(figures.load(quiet))
    assert "above the roof" not in words(sheet)
    low = {"cpu": {"copy_gb_per_s": 21.4, "matmul_tflops": {"float32": 0.001}}}
    folder = write_run(tmp_path / "low", environment=ENVIRONMENT | {"declared": DECLARED, "ceilings": low}, **SMALL)
    (sheet,) = roofline.draw(figures.load(folder))
    told = words(sheet).replace("\n", " ")
    assert "4 of 4 points lie above the roof: an error of the ceilings, measured too low." in told


def test_a_table_says_first_that_its_figures_are_contended_and_marks_them(busy: Path, quiet: Path) -> None:
    text = table.comparison(store.read(busy), width=100, colour=False)
    assert text.startswith("CONTENDED: 4 of 4 figures were measured while the machine had other work;")
    assert text.count("% !") == 4
    assert "CONTENDED" not in table.comparison(store.read(quiet), width=100, colour=False)

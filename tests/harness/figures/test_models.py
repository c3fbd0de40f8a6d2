"""Whole models in figures and tables: by resolution where that is the axis, never two models in one sheet."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import making
import matplotlib
import matplotlib.text
import pytest

from harness import figures
from harness.cases.filters import only
from harness.figures import Skip, latency, resolution
from harness.figures._style import RC
from harness.store.pivot import pivot
from harness.store.record import Case, Reading
from harness.store.runs import Store, read
from harness.store.selection import labelled, metric_rows

SIDES = (224, 448, 896, 1792)
HEADS = {"anchorformer_tiny": 3, "anchorformer_small": 6}


def cases(model: str) -> list[tuple[Case, list[Reading]]]:
    """full, which does not fit at last, and anchor: nobody measured these."""
    found = []
    for side in SIDES:
        n = (side // 16) ** 2 + 2
        base = making.case(
            scope="model", n=n, h=HEADS[model], d=64, options=f"model={model};resolution={side}"
        )  # fmt: skip
        for case, work in ((base, n * n), (replace(base, attention="anchor", m=30), 300 * n)):
            if case.attention == "full" and side == 1792:
                note = "needs 41.0 GB, 21.9 GB free; predicted, not tried"
                readings = [Reading(metric="latency", status="oom", note=note)]
            else:
                ms = 5 + work / 1e5
                readings = [
                    Reading(metric="latency", value=ms, ci_low=0.97 * ms, ci_high=1.02 * ms, samples=9),
                    Reading(metric="throughput", value=1e3 / ms, samples=9),
                    Reading(metric="flops", value=2 * 10**9 + 1000 * work, samples=1),
                    Reading(metric="peak_memory", value=3 + work / 1e6, samples=1),
                ]
            found.append((case, readings))
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, and a core beside them."""
    folder = tmp_path_factory.mktemp("models")
    with Store.open(folder, metrics=("latency",)) as store:
        for case, readings in [pair for model in HEADS for pair in cases(model)]:
            store.append([making.row(case, reading) for reading in readings], {})
        store.append(making.rows(making.case(h=3, d=64, n=198)), {})
        store.append(making.rows(making.case(h=3, d=64, n=786)), {})
    return folder


def drawn(module: Any, run: Path) -> dict[str, Any]:
    with matplotlib.rc_context(RC):
        sheets = {sheet.suffix: sheet.figure for sheet in module.draw(figures.load(run))}
        for figure in sheets.values():
            figure.draw_without_rendering()
    return sheets


def words(figure: Any) -> str:
    return " ".join("\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text)).split())


def test_a_sheet_a_model_with_every_resolution_on_its_axis(run: Path) -> None:
    sheets = drawn(resolution, run)
    assert list(sheets) == ["model_anchorformer_small-h6", "model_anchorformer_tiny-h3"]
    for name, figure in sheets.items():
        said = words(figure)
        assert f"scope model {name[6:].rpartition('-')[0]}" in said
        assert "Did not fit: full at 1792: needs 41.0 GB" in said
        assert [axes.get_title(loc="left") for axes in figure.axes] == ["latency (ms)", "GMAC", "peak memory (MiB)"]
        for axes in figure.axes:
            assert [text.get_text() for text in axes.get_xticklabels()] == [str(side) for side in SIDES]
            boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
            assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
        assert figure.get_tightbbox().width * figure.dpi <= figure.bbox.width + 1


def test_multiply_adds_are_half_the_flops_and_a_failure_is_a_mark(run: Path) -> None:
    figure = drawn(resolution, run)["model_anchorformer_tiny-h3"]
    lines = {
        len(line.get_xdata()): line.get_ydata()
        for line in figure.axes[1].lines
        if line.get_linestyle() != "None" and len(line.get_xdata()) == len(SIDES)
    }
    anchor = [line.get_ydata() for line in figure.axes[1].lines if list(line.get_xdata()) == list(SIDES)]
    expected = [(2e9 + 1000 * 300 * ((side // 16) ** 2 + 2)) / 2e9 for side in SIDES]
    assert any(list(values) == pytest.approx(expected) for values in anchor), lines
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert [list(mark.get_xdata()) for mark in marks] == [[1792]]


def test_figures_over_n_keep_models_and_cores_apart(run: Path) -> None:
    sheets = drawn(latency, run)
    assert sorted(sheets) == ["core-h3", "model_anchorformer_small-h6", "model_anchorformer_tiny-h3"]
    assert "resolution" not in words(sheets["model_anchorformer_tiny-h3"]).replace("scope model", "")


def test_tables_name_the_model_and_its_unit(run: Path) -> None:
    frame = labelled(read(run))
    tables = pivot(frame, "throughput")
    by_scope = {table.setting["scope"]: table for table in tables}
    tiny = by_scope["model anchorformer_tiny"]
    assert tiny.unit == "img/s"
    assert tiny.rows == [("full:reference", None), ("anchor:reference", 30)]
    assert tiny.columns == [198, 786, 3138, 12546]
    assert tiny.cells[("full:reference", None), 12546].status == "oom"
    assert set(metric_rows(frame, "latency")["unit"]) == {"ms"}


def test_scope_model_selects_every_model(run: Path) -> None:
    frame = labelled(read(run))
    assert set(only(frame, scope=["model"])["h"]) == {3, 6}
    assert set(only(frame, scope=["model anchorformer_small"])["h"]) == {6}
    assert set(only(frame, scope=["core"])["scope"]) == {"core"}
    assert len(only(frame)) == len(frame)


def test_a_run_without_models_or_with_one_resolution_draws_nothing(run: Path) -> None:
    loaded = figures.load(run)
    for keep, why in (
        (loaded.frame["scope"] == "core", "no whole models"),
        (loaded.frame["n"] == 198, "only one resolution"),
    ):
        with pytest.raises(Skip, match=why):
            resolution.draw(replace(loaded, frame=loaded.frame[keep]))

"""Figures as they are wished: title, size, scale, style, PDF, and any metric over any axis."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.text
import pytest
from synthetic import write_run

from harness import figures
from harness.errors import UsageError
from harness.figures import Skip
from harness.figures._wish import Wish
from harness.store import runs as store

METRICS = ["latency", "peak_memory", "approximation_error"]


def draw(folder: Path, name: str, **wanted: Any) -> list[figures.Sheet]:
    wish = Wish.parse(**wanted, metrics=METRICS)
    return figures.draw(replace(figures.load(folder), wish=wish), name)


def texts(figure: Any) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def panels(sheet: figures.Sheet) -> list[Any]:
    return [axes for axes in sheet.figure.axes if axes.get_visible()]


@pytest.mark.parametrize("name", ["latency", "memory", "speedup", "roofline", "scaling", "heatmap", "error"])
@pytest.mark.parametrize(("size", "width", "height"), [("5", 5.0, None), ("6x5.5", 6.0, 5.5)])
def test_every_figure_takes_a_size(small_run: Path, name: str, size: str, width: float, height: float | None) -> None:
    """Laid out for it: nothing hangs over an edge, and the panels keep their room."""
    (sheet,) = draw(small_run, name, size=size)
    found = sheet.figure.get_size_inches()
    assert found[0] == width
    assert height is None or found[1] == height
    for axes in panels(sheet):
        box = axes.get_tightbbox().transformed(sheet.figure.dpi_scale_trans.inverted())
        assert box.x0 > -0.05
        assert box.x1 < width + 0.05
        assert axes.get_position().height > 0


def test_a_size_without_room_is_refused(small_run: Path) -> None:
    with pytest.raises(UsageError, match="leaves no room for the panels: legend and caption take"):
        draw(small_run, "latency", size="3x2")


@pytest.mark.parametrize("name", ["latency", "memory", "speedup"])
def test_the_scale_of_values_can_be_linear(small_run: Path, name: str) -> None:
    (sheet,) = draw(small_run, name, scale="linear")
    (other,) = draw(small_run, name, scale="log")
    assert {axes.get_yscale() for axes in panels(sheet)} == {"linear"}
    assert {axes.get_yscale() for axes in panels(other)} == {"log"}
    assert all(axes.get_ylim()[0] <= 0 for axes in panels(sheet))
    highest = max(line.get_ydata().max() for line in panels(sheet)[0].lines if len(line.get_ydata()) > 2)
    assert math.isnan(highest) or panels(sheet)[0].get_ylim()[1] > highest


def test_one_n_takes_a_linear_scale_too(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", sizes=(1024,), anchors=(16,), phases=("forward",), dtypes=("float32",))
    (sheet,) = draw(folder, "latency", scale="linear")
    assert [axes.get_xscale() for axes in panels(sheet)] == ["linear"]
    assert panels(sheet)[0].get_xlim()[0] == 0


@pytest.mark.parametrize("name", ["roofline", "scaling", "heatmap", "error"])
def test_a_figure_with_scales_of_its_own_says_so(small_run: Path, name: str) -> None:
    with pytest.raises(Skip, match="its scales are its own"):
        draw(small_run, name, scale="linear")


def test_a_title_stands_above(small_run: Path) -> None:
    (sheet,) = draw(small_run, "latency", title="On this $machine$")
    assert "On this $machine$" in texts(sheet.figure)


def test_a_style_goes_on_top_of_ours(small_run: Path, tmp_path: Path) -> None:
    (sheet,) = draw(small_run, "latency", style="dark_background")
    (usual,) = draw(small_run, "latency")
    assert sheet.figure.get_facecolor() != usual.figure.get_facecolor()
    mine = tmp_path / "mine.mplstyle"
    mine.write_text("axes.facecolor: ff0000\n")
    (sheet,) = draw(small_run, "latency", style=str(mine))
    assert panels(sheet)[0].get_facecolor() == (1.0, 0.0, 0.0, 1.0)
    (usual,) = draw(small_run, "latency")
    assert panels(usual)[0].get_facecolor() != (1.0, 0.0, 0.0, 1.0)  # it is not kept


def test_pdf_has_text_that_can_be_read_and_is_repeatable(small_run: Path, tmp_path: Path) -> None:
    run = figures.load(small_run)
    for place in ("a", "b"):
        outcome = figures.write(run, ["latency"], tmp_path / place, formats=["pdf"])
        assert outcome.figures == {"latency": [tmp_path / place / "latency.pdf"]}
    data = (tmp_path / "a" / "latency.pdf").read_bytes()
    assert data.startswith(b"%PDF-")
    assert b"/TrueType" in data or b"/CIDFontType2" in data  # no outlines of type 3
    assert data == (tmp_path / "b" / "latency.pdf").read_bytes()


# Any metric over any axis


def lines(sheet: figures.Sheet) -> list[Any]:
    return [line for axes in panels(sheet) for line in axes.lines if line.get_marker() not in ("None", None, "", "o")]


def test_a_metric_over_m_has_a_line_for_each_n(small_run: Path) -> None:
    (sheet,) = draw(small_run, "", x="m", y="peak_memory")
    frame = store.read(small_run)
    rows = frame[(frame["metric"] == "peak_memory") & (frame["attention"] == "anchor") & (frame["status"] == "ok")]
    wanted = {tuple(own.sort_values("m")["value"]) for _, own in rows.groupby("n")}
    drawn = {tuple(line.get_ydata()) for line in lines(sheet)}
    assert wanted <= drawn
    words = texts(sheet.figure)
    assert "peak memory (MiB)" in words
    assert "Level dashed lines: variants without an m." in words
    assert "n=32k" in words


def test_a_metric_over_n_is_the_figure_over_n(small_run: Path) -> None:
    (sheet,) = draw(small_run, "", y="latency")
    (usual,) = draw(small_run, "latency")

    def held(one: figures.Sheet) -> set[tuple[float, ...]]:
        return {tuple(line.get_ydata()) for line in lines(one)}

    assert {values for values in held(usual) if not any(map(math.isnan, values))} & held(sheet)


def test_a_metric_over_another_metric(small_run: Path) -> None:
    (sheet,) = draw(small_run, "", x="approximation_error", y="latency")
    frame = store.read(small_run)
    ok = frame[frame["status"] == "ok"]
    both = ok[ok["metric"] == "latency"].merge(ok[ok["metric"] == "approximation_error"], on="case_id")
    wanted = {(row.value_y, row.value_x) for row in both.itertuples() if row.value_y > 0}
    drawn = {pair for line in lines(sheet) for pair in zip(line.get_xdata(), line.get_ydata(), strict=True)}
    assert drawn == wanted
    assert {axes.get_xscale() for axes in panels(sheet)} == {"log"}


def test_a_metric_over_the_batch_has_all_batches_in_one_figure(tmp_path: Path) -> None:
    changes = ({"b": 1}, {"b": 2}, {"b": 4})
    folder = write_run(
        tmp_path / "r", variants=("flash",), sizes=(1024,), phases=("forward",), dtypes=("float32",), changes=changes
    )  # fmt: skip
    (sheet,) = draw(folder, "", x="batch", y="latency")
    (line,) = lines(sheet)
    assert list(line.get_xdata()) == [1, 2, 4]
    words = texts(sheet.figure)
    assert "h=6 d=64" in words
    assert "b=1" not in words


def test_a_metric_that_no_case_has_is_a_skip(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", variants=("full",), sizes=(64,), phases=("forward",), dtypes=("float32",))
    with pytest.raises(Skip, match="no case has latency and m above zero"):
        draw(folder, "", x="m", y="latency")


def test_the_files_are_named_after_what_they_show(small_run: Path, tmp_path: Path) -> None:
    wish = Wish.parse(x="m", y="peak_memory", metrics=METRICS)
    outcome = figures.write(replace(figures.load(small_run), wish=wish), [], tmp_path, formats=["svg"])
    assert outcome.figures == {"peak_memory-over-m": [tmp_path / "peak_memory-over-m.svg"]}

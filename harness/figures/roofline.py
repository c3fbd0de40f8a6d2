"""Roofline: TFLOP/s against FLOPs a byte, below what this device was measured to do (environment.json, `ceilings`)."""

from __future__ import annotations

from typing import Any

import numpy
import pandas

from harness.figures import Run, Sheet, Skip
from harness.figures._lines import register
from harness.figures._sheet import Panel, Paper, faint, ring, sheets
from harness.figures._style import INK, lines_of, log_ticks, number
from harness.store.ceilings import of_row, rates
from harness.store.selection import Frame, metric_rows

ROOM_FOR_WORDS = 0.36  # above the roof, as a share of the height below it
ABOVE = 1.02  # times the roof: what medians of two measurements may differ by
SMALLEST_MARK, LARGEST_MARK = 3.6, 7.5


def draw(run: Run) -> list[Sheet]:
    """A path a variant and m from its smallest to its largest n."""
    rows = points(run)
    drawn = []
    for suffix, where, group in sheets(rows):
        paper = Paper(where, group, run)
        panels = paper.panels(height=2.6)
        roofs = [roof_of(run, where["device"], panel.values["dtype"], machine=where["machine"]) for panel in panels]
        _axes(panels, group, roofs)
        for panel, roof in zip(panels, roofs, strict=True):
            _draw_roof(panel, roof)
            for attention, series, m, line in lines_of(panel.ok):
                look = paper.looks.of(attention, series, m)
                panel.axes.plot(line["intensity"], line["value"], **{**look.line(), "marker": ""})
                ring(panel.axes, line["intensity"], line["value"], line["note"])
                for x, y, mark in zip(line["intensity"], line["value"], _marks(line["n"], group["n"]), strict=True):
                    panel.axes.plot([x], [y], linestyle="none", **look.point(markersize=mark))
                register(paper, attention, series, m)
        convention = "A backward pass counts two forward passes, 2.5 for kernels that recompute the scores."
        drawn.append(
            paper.finish(
                [
                    _above(panels, run),
                    "Medians; the roof is a large copy and a large matrix product measured on this device.",
                    "FLOPs and least bytes are the cost model's. Larger mark: larger n.",
                    convention if set(group["phase"]) - {"forward"} else "",
                    "" if all(roofs) else "No ceilings were measured for a panel without a roof.",
                ],
                suffix=suffix,
            )
        )  # fmt: skip
    return drawn


def _above(panels: list[Panel], run: Run) -> str:
    """How many points lie above the roof of their session, which no case can: its ceilings were measured too low."""
    rows = [(row, _roof(of_row(run.environment, row))) for panel in panels for row in panel.ok.itertuples()]
    high = [row.value > ABOVE * min(roof[0] * row.intensity, roof[1]) for row, roof in rows if roof is not None]
    if not any(high):
        return ""
    lie = "lies" if sum(high) == 1 else "lie"
    return f"{sum(high)} of {len(high)} points {lie} above the roof: an error of the ceilings, measured too low."


def points(run: Run) -> Frame:
    """The rows of flops_rate with `intensity`: the FLOPs behind that rate over the least bytes."""
    rate = run.rows("flops_rate")
    key = ["machine", "case_id"]
    at = pandas.MultiIndex.from_frame(rate[key])
    latency, moved = (
        metric_rows(run.frame, metric).set_index(key)["value"].reindex(at).to_numpy()
        for metric in ("latency", "bytes_moved")
    )
    rate["intensity"] = rate["value"] * latency * 1e9 / (moved * 2**20)  # TFLOP/s · ms = 1e9 FLOP
    rate = rate[(rate["status"] != "ok") | ((rate["intensity"] > 0) & (rate["value"] > 0))]
    if not (rate["status"] == "ok").any():
        raise Skip("no case has flops_rate, latency and bytes_moved together")
    return rate


def roof_of(run: Run, device: str, dtype: str, *, machine: str = "") -> tuple[float, float] | None:
    """(copy bandwidth in TB/s, matrix rate in TFLOP/s) of a machine's newest session, or None where it has none."""
    return _roof(rates(run.environment, machine=machine, device=device, dtype=dtype))


def _roof(found: tuple[float | None, float | None]) -> tuple[float, float] | None:
    copy, product = found
    return None if copy is None or product is None else (copy / 1e3, product)


def _axes(panels: list[Panel], rows: Frame, roofs: list[tuple[float, float] | None]) -> None:
    """The same log axes for all panels, wide enough for every point and every ridge."""
    ok = rows[rows["status"] == "ok"]
    known = [roof for roof in roofs if roof]
    xs = [*ok["intensity"], *(product / copy for copy, product in known)]
    ys = [*ok["value"], *(product for _, product in known)]
    x_low, x_high, y_low = min(xs) / 1.6, max(xs) * 1.6, min(ys) / 1.6
    y_high = max(ys) * max(1.6, (max(ys) / y_low) ** ROOM_FOR_WORDS)
    for panel in panels:
        panel.axes.set(xscale="log", yscale="log", xlim=(x_low, x_high), ylim=(y_low, y_high))
        log_ticks(panel.axes.xaxis, x_low, x_high, inches=panel.inches)
        log_ticks(panel.axes.yaxis, y_low, y_high, inches=2.0)
        if panel.left:
            panel.axes.set_ylabel("TFLOP/s")
        if panel.bottom:
            panel.axes.set_xlabel("FLOPs per byte (least traffic)")


def _draw_roof(panel: Panel, roof: tuple[float, float] | None) -> None:
    if roof is None:
        faint(panel.axes, 0.03, 0.95, "no measured ceilings", va="top")
        return
    copy, product = roof
    x_low, x_high = panel.axes.get_xlim()
    x = numpy.geomspace(x_low, x_high, 200)
    panel.axes.plot(x, numpy.minimum(copy * x, product), color=INK, linewidth=1.3, zorder=1.8)
    text = f"copy {_digits(copy * 1e3)} GB/s\nmatmul {_digits(product)} TFLOP/s"
    faint(panel.axes, 0.03, 0.95, text, va="top", color=INK, linespacing=1.3)


def _digits(value: float) -> str:
    return number(float(f"{value:.3g}"))


def _marks(sizes: Any, everything: Any) -> numpy.ndarray:
    """Mark sizes growing with log n over the whole sheet."""
    low, high = numpy.log2(float(min(everything))), numpy.log2(float(max(everything)))
    share = (numpy.log2(numpy.asarray(sizes, dtype=float)) - low) / (high - low) if high > low else 0.5
    return SMALLEST_MARK + (LARGEST_MARK - SMALLEST_MARK) * numpy.broadcast_to(share, len(sizes))

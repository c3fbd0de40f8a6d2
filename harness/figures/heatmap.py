"""n × m: the latency of each variant with a bottleneck, coloured by its speed-up over flash (or full) at the same n."""

from __future__ import annotations

import math
from typing import Any

import numpy
import seaborn
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from harness.figures import Run, Sheet, Skip
from harness.figures._lines import base_of
from harness.figures._sheet import Paper, sheets
from harness.figures._style import INK, log_ticks, short
from harness.store.selection import ORDER, PANEL, Frame, place, printable, size

ROW_INCHES = 0.42
SHORT = {"unsupported": "n/a", "unavailable": "n/a"}
MOST_FOR_TWO_LINES, MOST_FOR_TEXT = 13, 20
EMPTY = "#f2f2f2"


def draw(run: Run) -> list[Sheet]:
    """A file a phase and dtype, a panel a variant."""
    rows = run.rows("latency")
    if not (rows["m"].notna() & (rows["status"] == "ok")).any():
        raise Skip("no variant with an m has a latency")
    if rows.loc[rows["m"].notna(), ["n", "m"]].drop_duplicates().shape[0] == 1:
        raise Skip("there is only one n and one m")
    drawn = []
    for suffix, where, group in sheets(rows, by=PANEL):
        ok = group[group["status"] == "ok"]
        base = base_of(ok[ok["m"].isna()])
        by_n = {} if base is None else {row.n: row.value for row in ok[ok["series"] == base].itertuples()}
        if ok["m"].notna().any():
            drawn.append(_sheet(run, suffix, where, group, base, by_n))
    return drawn


def _sheet(
    run: Run, suffix: str, where: dict[str, Any], rows: Frame, base: str | None, by_n: dict[int, float]
) -> Sheet:
    narrow = rows[rows["m"].notna()]
    good = set(narrow.loc[narrow["status"] == "ok", "series"])
    series = narrow[narrow["series"].isin(good)].drop_duplicates("series")
    series = sorted(series[["attention", "series"]].to_numpy().tolist(), key=lambda s: (place(s[0], ORDER), s[1]))
    ns, ms = sorted(set(narrow["n"])), sorted(set(narrow["m"]))
    tables = [_table(narrow[narrow["series"] == name], ns, ms) for _, name in series]
    colours = [_ratios(values, ns, by_n) if by_n else values for values, _ in tables]
    norm, palette = _scale(colours, ratio=bool(by_n))
    paper = Paper(where, rows, run)
    grid = paper.grid(len(series), 1, tall=(ROW_INCHES * len(ms) + 0.34) * len(series) + 0.35, sharex=True)
    for at, ((attention, name), (values, texts), shown) in enumerate(zip(series, tables, colours, strict=True)):
        axes = grid[at, 0]
        _cells(axes, values, texts, shown, ns, ms, norm, palette, ratio=bool(by_n))
        axes.set_title(printable(name, limit=60), fontweight="bold", pad=4, color=paper.looks.hues[attention][0])
        axes.set_ylabel("m")
        if at == len(series) - 1:
            axes.set_xlabel("n (tokens)")
    over = printable(base or "", limit=40)
    _bar(paper, grid, colours, norm, palette, f"speed-up over {over} (×)" if by_n else "latency (ms)")
    second = f"Second line: speed-up over {over} at the same n, above 1 is faster." if by_n else ""
    if base is not None and not base.startswith("flash"):
        second += " No flash in this run: full is the base."
    missing = set(narrow["status"]) & set(SHORT)
    lonely = bool(by_n) and not narrow.loc[narrow["status"] == "ok", "n"].isin(list(by_n)).all()
    second += f" Grey cells with one number: {over} has no latency there." if lonely else ""
    second += " Empty cells: not in this run." if any("none" in line for _, texts in tables for line in texts) else ""
    told = f"n/a: {', '.join(sorted(missing))}." if missing else ""
    return paper.finish(["Cells: median latency in ms.", second, told], suffix=suffix)


def _table(rows: Frame, ns: list[int], ms: list[int]) -> tuple[numpy.ndarray, list[list[str]]]:
    """Latencies (NaN without one) and the status of each cell, m descending from the top."""
    found = {(row.m, row.n): row for row in rows.itertuples()}
    values = numpy.full((len(ms), len(ns)), math.nan)
    texts = [["" for _ in ns] for _ in ms]
    for line, m in enumerate(reversed(ms)):
        for column, n in enumerate(ns):
            row = found.get((m, n))
            texts[line][column] = row.status if row is not None else "none"
            if row is not None and row.status == "ok" and row.value > 0:
                values[line, column] = row.value
    return values, texts


def _ratios(values: numpy.ndarray, ns: list[int], by_n: dict[int, float]) -> numpy.ndarray:
    return numpy.array([by_n.get(n, math.nan) for n in ns]) / values


def _scale(tables: list[numpy.ndarray], *, ratio: bool) -> tuple[LogNorm, Any]:
    """Log colours; for ratios symmetric around 1 with blue for faster and at most a factor 64 either way."""
    found = numpy.concatenate([table[numpy.isfinite(table) & (table > 0)] for table in tables])
    if not ratio:
        low, high = (found.min(), found.max()) if found.size else (1.0, 10.0)
        return LogNorm(low, max(high, low * 1.01)), seaborn.color_palette("viridis", as_cmap=True)
    reach = float(numpy.clip(max(found.max(), 1 / found.min()) if found.size else 2, 2, 64))
    return LogNorm(1 / reach, reach), seaborn.color_palette("RdBu", as_cmap=True)


def _cells(
    axes: Any, values: numpy.ndarray, texts: list[list[str]], shown: numpy.ndarray, ns: list[int], ms: list[int],
    norm: LogNorm, palette: Any, *, ratio: bool,
) -> None:  # fmt: skip
    axes.set_facecolor(EMPTY)
    axes.grid(visible=False)
    absent = ~numpy.isfinite(shown)
    seaborn.heatmap(
        numpy.where(absent, 1.0, shown), mask=absent, ax=axes, norm=norm, cmap=palette, cbar=False, linewidths=1.0,
        linecolor="white", xticklabels=[size(int(n)) for n in ns], yticklabels=[str(m) for m in reversed(ms)],
    )  # fmt: skip
    axes.tick_params(length=0)
    axes.set_yticklabels(axes.get_yticklabels(), rotation=0)
    axes.set_xticklabels(axes.get_xticklabels(), rotation=0)
    points = 8.5 if len(ns) <= 9 else 7.5 if len(ns) <= MOST_FOR_TWO_LINES else 6
    for line in range(len(ms)):
        for column in range(len(ns)):
            status, value, share = texts[line][column], values[line, column], shown[line, column]
            if status != "ok":
                _blank(axes, column, line, status, points)
                continue
            if len(ns) > MOST_FOR_TEXT:
                continue
            text = short(value)
            if ratio and len(ns) <= MOST_FOR_TWO_LINES and math.isfinite(share):
                text += f"\n{short(share)}×"
            axes.text(
                column + 0.5, line + 0.5, text, ha="center", va="center", fontsize=points, linespacing=1.1,
                color=_ink(palette(norm(share))) if math.isfinite(share) else INK, in_layout=False,
            )  # fmt: skip


def _blank(axes: Any, column: int, line: int, status: str, points: float) -> None:
    """A cell without a value: hatched with its status, or plain where the sweep holds no such case."""
    if status == "none":
        return
    axes.add_patch(
        Rectangle((column, line), 1, 1, facecolor=EMPTY, edgecolor="#c9c9c9", hatch="////", linewidth=0)
    )  # fmt: skip
    axes.text(
        column + 0.5, line + 0.5, SHORT.get(status, status), ha="center", va="center", fontsize=points, color=INK,
        bbox={"facecolor": EMPTY, "edgecolor": "none", "pad": 0.8},
    )  # fmt: skip


def _bar(
    paper: Paper, grid: Any, shown: list[numpy.ndarray], norm: LogNorm, palette: Any, label: str
) -> None:  # fmt: skip
    """The colour scale beside all panels, with pointed ends where a value lies beyond it."""
    low, high = float(norm.vmin or 1), float(norm.vmax or 10)
    beyond = any(((table > high) | (table < low)).any() for table in shown)
    bar = paper.figure.colorbar(
        ScalarMappable(norm, palette), ax=list(grid[:, 0]), pad=0.01, fraction=0.03, aspect=30,
        extend="both" if beyond else "neither", extendfrac=0.03,
    )  # fmt: skip
    log_ticks(bar.ax.yaxis, low, high)
    bar.set_label(label)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def _ink(colour: Any) -> str:
    """Dark text on light cells, white on dark ones."""
    red, green, blue = colour[:3]
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.52 else INK

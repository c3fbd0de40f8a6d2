"""A sheet of paper: panels side by side, one legend and one caption below them.

for suffix, where, rows in sheets(frame):                # unlike machines, devices, scopes and shapes apart
    paper = Paper(where, rows, run)
    for panel in paper.panels(): panel.axes.plot(...)
    yield paper.finish([...], suffix=suffix)
"""

from __future__ import annotations

import hashlib
import io
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.errors import UsageError
from harness.figures import Run, Sheet
from harness.figures._style import FAINT, INK, Looks, device_name
from harness.store import problem
from harness.store.clock import RATES, told
from harness.store.contention import banner, count, reason
from harness.store.record import DTYPES, PHASES
from harness.store.selection import FILE, PANEL, Frame, place, printable, settings, sort_key

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOUBT = "#c00000"
CAPTION_POINTS, CAPTION_LETTERS = 8, 148
MOST_COLUMNS = 10
LEAST_INCHES = 0.8  # of the panels, where a height is wished
FAILED = {"oom": ("x", "out of memory"), "timeout": ("+", "timeout"), "error": ("1", "error")}


class Page(Figure):
    """A figure that shows in a notebook by itself, whether or not pyplot was imported there."""

    def _repr_png_(self) -> bytes:
        page = io.BytesIO()
        self.savefig(page, format="png", dpi=110)
        return page.getvalue()


@dataclass
class Panel:
    """One pair of axes and its rows."""

    axes: Axes
    rows: Frame
    values: dict[str, Any]
    inches: float
    left: bool
    bottom: bool

    @property
    def ok(self) -> Frame:
        """The rows that carry a value."""
        return self.rows[self.rows["status"] == "ok"]


def sheets(
    rows: Frame, *, by: Sequence[str] = (), without: str = ""
) -> Iterator[tuple[str, dict[str, Any], Any]]:  # fmt: skip
    """(suffix, setting, rows) of each file: split by machine, device, scope, problem, b, h, d and `by`, where values
    exist.

    without: the one of these that is an axis of the figure, and then no part of the setting.

    The suffix names what several files differ in; it is empty for a single one.
    """
    keys = tuple(key for key in (*FILE, *by) if key != without)
    groups = [(where, group) for where, group in settings(rows, keys) if (group["status"] == "ok").any()]
    varying = [key for key in keys if len({where[key] for where, _ in groups}) > 1]
    taken: set[str] = set()
    for where, group in groups:
        text = "-".join(f"{key if key in 'bhd' else ''}{where[key]}" for key in varying)
        suffix = re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:80].strip(".")
        if suffix in taken:
            suffix += "-" + hashlib.sha256(text.encode()).hexdigest()[:6]
        taken.add(suffix)
        yield suffix, where, group


class Paper:
    """A figure being made: its axes, its looks, its legend."""

    def __init__(self, where: dict[str, Any], rows: Frame, run: Run, *, letters: int = 40) -> None:
        """letters: of a name in the legend."""
        self.where, self.rows, self.run, self.letters = where, rows, run, letters
        self.looks = Looks(run.whole)
        self.legend: dict[tuple[str, Any], Line2D] = {}
        self.width = run.wish.width
        self.figure, self.tall = Page(figsize=(self.width, 4), layout="constrained"), 4.0

    def grid(self, lines: int, columns: int, *, tall: float, **how: Any) -> Any:
        """lines × columns axes, `tall` inches high in all."""
        self.tall = tall
        self.figure.set_size_inches(self.width, tall)
        return self.figure.subplots(lines, columns, squeeze=False, **how)

    def panels(self, *, height: float = 2.45, single: float = 1.45) -> list[Panel]:
        """A panel for each phase and dtype with values: phases across and dtypes down, or one row of either.

        height: of a panel in inches; `single` times that where one panel has the whole width.
        """
        found = [(v, g) for v, g in settings(self.rows, PANEL) if (g["status"] == "ok").any()]
        phases = sorted({v["phase"] for v, _ in found}, key=lambda name: place(name, PHASES))
        dtypes = sorted({v["dtype"] for v, _ in found}, key=lambda name: place(name, DTYPES))
        if len(phases) > 1 and len(dtypes) > 1:
            columns, lines = len(phases), len(dtypes)
            cells = [(dtypes.index(v["dtype"]), phases.index(v["phase"])) for v, _ in found]
        else:
            columns = min(3, len(found))
            lines = -(-len(found) // columns)
            cells = [divmod(at, columns) for at in range(len(found))]
        tall = lines * (height if columns > 1 else height * single)
        grid = self.grid(lines, columns, tall=tall, sharex=True, sharey=True)
        panels = []
        for (values, group), (line, column) in zip(found, cells, strict=True):
            axes, low = grid[line, column], (line + 1, column) not in cells
            panels.append(Panel(axes, group, values, self.width / columns - 0.55, column == 0, low))
            axes.tick_params(labelbottom=low)
            if len(found) > 1:
                axes.set_title(f"{values['phase']} · {values['dtype']}", fontweight="bold", pad=4)
        for line in range(lines):
            for column in range(columns):
                grid[line, column].set_visible((line, column) in cells)
        return panels

    def entry(self, attention: str, series: str) -> None:
        """Put a variant in the legend."""
        look = self.looks.of(attention, series)
        handle = Line2D([], [], **look.line(markersize=6))
        self.legend[series, (0, *sort_key(attention, series))] = handle

    def size_entry(self, m: int) -> None:
        """Put a line style for m in the legend."""
        handle = Line2D([], [], color="#666666", linestyle=self.looks.dash(m), linewidth=self.looks.width(m))
        self.legend[f"m = {m}", (1, m)] = handle

    def failure_entry(self, status: str) -> None:
        """Put the mark of a failure in the legend."""
        marker, text = FAILED[status]
        handle = Line2D([], [], color="#666666", linestyle="none", marker=marker, markersize=7, markeredgewidth=1.6)
        self.legend[text, (2, status)] = handle

    def finish(self, notes: Sequence[str], *, suffix: str = "") -> Sheet:
        """Add the legend and the caption under the panels and hand the sheet over."""
        timed = bool(set(self.rows["metric"]) & {"latency", *RATES})
        clock = told(self.run.clock, self.where["device"]) if timed else ""
        masks = problem.sentence(self.where["problem"], h=self.where["h"])
        sentences = " ".join(filter(None, [self._contended(), *notes, clock, masks, self._absent()]))
        caption = self._caption([self._setting(), sentences])
        dpi = self.figure.dpi
        below = caption.get_window_extent().height / dpi + 0.12
        rows = [self._legend([label for label in sorted(self.legend, key=lambda e: e[1]) if label[1][0] in kinds])
                for kinds in ((0,), (1, 2))]  # fmt: skip
        for row in reversed([row for row in rows if row is not None]):
            row.set_bbox_to_anchor((0.5 * self.width, below), transform=self.figure.dpi_scale_trans)
            below += row.get_window_extent().height / dpi + 0.03
        below += 0.03
        tall = self.run.wish.height or self.tall + below
        if self.run.wish.height and tall - below < LEAST_INCHES:
            raise UsageError(
                f"--size of {self.width:g}x{tall:g} inches leaves no room for the panels: legend and caption take "
                f"{below:.1f}"
            )
        self.figure.set_size_inches(self.width, tall)
        engine: Any = self.figure.get_layout_engine()
        engine.set(rect=(0, below / tall, 1, 1 - below / tall), w_pad=0.05)
        return Sheet(self.figure, suffix)

    def _caption(self, paragraphs: Sequence[str]) -> Any:
        """The caption in lines as long as fit the width."""
        text = self.figure.text(
            0.06, 0.05, "", transform=self.figure.dpi_scale_trans, fontsize=CAPTION_POINTS, color="#555555",
            va="bottom", linespacing=1.25,
        )  # fmt: skip
        for letters in range(CAPTION_LETTERS, 40, -6):
            text.set_text("\n".join(line for words in paragraphs for line in textwrap.wrap(words, letters)))
            if text.get_window_extent().width <= (self.width - 0.12) * self.figure.dpi:
                break
        return text

    def _legend(self, entries: Sequence[tuple[str, Any]]) -> Any:
        """A legend of these entries with as many columns as fit the width, or None for no entries."""
        handles = [self.legend[entry] for entry in entries]
        labels = [printable(label, limit=self.letters) for label, _ in entries]
        legend = None
        for columns in range(min(len(handles), MOST_COLUMNS), 0, -1):
            if columns > -(-len(handles) // -(-len(handles) // columns)):
                continue  # fewer columns make as many rows
            legend = self.figure.legend(
                handles, labels, loc="lower center", bbox_to_anchor=(0, 0), ncols=columns, handlelength=2.2,
                columnspacing=1.4, handletextpad=0.5, borderpad=0.1, borderaxespad=0.0,
                bbox_transform=self.figure.dpi_scale_trans,
            )  # fmt: skip
            legend.set_in_layout(False)
            if columns == 1 or legend.get_window_extent().width <= (self.width - 0.15) * self.figure.dpi:
                break
            legend.remove()
        return legend

    def _setting(self) -> str:
        """Device, scope, phases, dtypes and shape: what a reader must know to compare."""
        ok = self.rows[self.rows["status"] == "ok"]
        phases = sorted(set(ok["phase"]), key=lambda name: place(name, PHASES))
        dtypes = sorted(set(ok["dtype"]), key=lambda name: place(name, DTYPES))
        where = self.where
        device = device_name(self.run, where["device"], where["machine"])
        shape = " ".join(f"{name}={where[name]}" for name in "bhd" if name in where)
        problem_told = where.get("problem", problem.DEFAULT)
        shape += "" if problem_told == problem.DEFAULT else f" {printable(problem_told)}"
        return " · ".join([printable(device), f"scope {where['scope']}", ", ".join(phases), ", ".join(dtypes), shape])

    def _contended(self) -> str:
        """How many of the points were measured beside other work; first of all that is said."""
        ok = self.rows[self.rows["status"] == "ok"]
        found = banner(count(ok["note"]), len(ok), "point")
        return f"{found} (ringed where points are drawn)." if found else ""

    def _absent(self) -> str:
        """The variants without a value on this sheet, with the first reason given."""
        good = set(self.rows.loc[self.rows["status"] == "ok", "attention"])
        told = []
        for attention, group in self.rows[~self.rows["attention"].isin(good)].groupby("attention"):
            first = group.iloc[0]
            note = f" ({brief(first['note'])})" if first["note"] else ""
            told.append(f"{printable(attention, limit=40)}: {first['status']}{note}")
        return f"Not drawn: {'; '.join(told[:4])}{'; …' if len(told) > 4 else ''}." if told else ""


def brief(note: str, *, limit: int = 100) -> str:
    """The first clause of a note, ended by … where it is too long for a caption."""
    return textwrap.shorten(printable(note.split(";")[0], limit=1000), limit, placeholder=" …")


def ring(axes: Axes, x: Iterable[float], y: Iterable[float], notes: Iterable[str]) -> None:
    """A ring round each point whose note says that its machine was not quiet."""
    doubted = [(a, b) for a, b, note in zip(x, y, notes, strict=True) if reason(note)]
    if doubted:
        axes.plot(
            *zip(*doubted, strict=True), linestyle="none", marker="o", markersize=11, markerfacecolor="none",
            markeredgecolor=DOUBT, markeredgewidth=1.3, zorder=4,
        )  # fmt: skip


def reference_line(axes: Axes, *, x: float | None = None, y: float | None = None) -> None:
    """A thin dark line to compare with, at an x or a y."""
    if y is not None:
        axes.axhline(y, color=INK, linewidth=1.0, zorder=1.5)
    if x is not None:
        axes.axvline(x, color=INK, linewidth=1.0, zorder=1.5)


def faint(axes: Axes, x: float, y: float, text: str, **how: Any) -> None:
    """A small remark inside a panel, in axes coordinates."""
    axes.text(x, y, text, transform=axes.transAxes, fontsize=8, color=how.pop("color", FAINT), **how)

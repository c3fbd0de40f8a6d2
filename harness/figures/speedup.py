"""Speed-up over flash against n, with its interval: above 1 is faster than flash. Over full where there is no flash."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from harness import stats
from harness.figures import Run, Sheet, Skip
from harness.figures._lines import draw_failures, draw_line, failure_rows, finish_axes, register
from harness.figures._sheet import Paper, faint, reference_line, sheets
from harness.figures._style import lines_of
from harness.selection import PANEL, printable, settings

if TYPE_CHECKING:
    import pandas

BASES = ("flash", "full")
DRAWN_VALUES = 2_000_000


def draw(run: Run) -> list[Sheet]:
    """Latency of the base over that of each line, at the same n, phase and dtype."""
    rows = run.rows("latency")
    drawn = []
    for suffix, where, group in sheets(rows):
        parts = [ratios(part, run) for _, part in settings(group, PANEL)]
        parts = [part for part in parts if part is not None]
        if not parts:
            continue
        import pandas

        ratio = pandas.concat(parts)
        if not (ratio["status"] == "ok").any():
            continue
        paper = Paper(where, ratio, run)
        marks = failure_rows(ratio)
        bases = sorted(set(ratio["base"]))
        panels = paper.panels()
        for panel in panels:
            reference_line(panel.axes, y=1.0)
            for attention, series, m, line in lines_of(panel.rows):
                if (line["status"] == "ok").any():
                    draw_line(panel, paper.looks.of(attention, series, m), line)
                    register(paper, attention, series, m)
            draw_failures(paper, panel, marks)
            base = printable(panel.rows["base"].iloc[0], limit=40)
            if panel.left:
                over = base if len(bases) == 1 else "the base"
                panel.axes.set_ylabel(f"speed-up over {over} (×)")
            if len(bases) > 1:
                faint(panel.axes, 0.02, 0.03, f"1 = {base}")
        finish_axes(paper, panels, marks=len(marks), include=1.0)
        lacking = "" if any(base.startswith("flash") for base in bases) else "No flash in this run: full is the base."
        named = ", ".join(printable(base, limit=40) for base in bases)
        drawn.append(
            paper.finish(
                [f"The line at 1 is {named}; above it is faster.", lacking], suffix=suffix,
                interval="Ratio of medians; bands are 95 % bootstrap intervals (of the two intervals without samples).",
            )
        )  # fmt: skip
    if not drawn:
        raise Skip("neither flash nor full has a latency at a size where another variant has one")
    return drawn


def ratios(rows: pandas.DataFrame, run: Run) -> pandas.DataFrame | None:
    """The rows of one panel with value and interval turned into speed-ups over its base, named in column `base`."""
    ok = rows[rows["status"] == "ok"]
    base = base_of(ok)
    if base is None:
        return None
    by_n = {row.n: row for row in ok[ok["series"] == base].itertuples()}
    others = rows[rows["series"] != base].assign(base=base)
    speed = [_ratio(by_n.get(row.n), row, run) for row in others.itertuples()]
    for at, name in enumerate(("value", "ci_low", "ci_high")):
        others[name] = [triple[at] for triple in speed]
    without = (others["status"] == "ok") & others["value"].isna()
    return others[~without]


def base_of(ok: pandas.DataFrame) -> str | None:
    """The flash series, else the full one, with the most sizes; the first by name among equals."""
    for attention in BASES:
        own = ok[ok["attention"] == attention]
        if len(own):
            sizes = own.groupby("series")["n"].nunique()
            return str(sizes.index[sizes.to_numpy().argmax()])
    return None


def _ratio(base: Any, row: Any, run: Run) -> tuple[float, float, float]:
    """(ratio of medians, low, high); from the raw samples where both are kept."""
    nothing = (math.nan, math.nan, math.nan)
    if base is None or not row.value > 0 or not base.value > 0:
        return nothing
    top, bottom = run.samples(base), run.samples(row)
    if top is not None and bottom is not None and (bottom > 0).all():
        draws = min(2000, max(200, DRAWN_VALUES // (len(top) + len(bottom))))
        return stats.ratio_interval(top, bottom, draws=draws)
    ratio = base.value / row.value
    if not (row.ci_low > 0 and row.ci_high > 0 and base.ci_low > 0 and base.ci_high > 0):
        return ratio, math.nan, math.nan
    return ratio, base.ci_low / row.ci_high, base.ci_high / row.ci_low

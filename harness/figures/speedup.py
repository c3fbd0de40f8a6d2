"""Speed-up over flash against n, with its interval: above 1 is faster than flash. Over full where there is no flash."""

from __future__ import annotations

import math
from typing import Any

import pandas

from harness import stats
from harness.figures import Run, Sheet, Skip
from harness.figures._lines import base_of, sheet_over_n
from harness.figures._sheet import Paper, sheets
from harness.store.contention import MARK, reason
from harness.store.selection import PANEL, Frame, printable, settings

DRAWN_VALUES = 2_000_000
ALONE = "no base"  # the status of a latency that has nothing to be compared with
SCALES = True  # log or linear, as is wished


def draw(run: Run) -> list[Sheet]:
    """Latency of the base over that of each line, at the same n, phase and dtype."""
    rows = run.rows("latency")
    drawn = []
    for suffix, where, group in sheets(rows):
        parts = [ratios(part, run) for _, part in settings(group, PANEL)]
        parts = [part for part in parts if part is not None]
        if not parts:
            continue
        ratio: Frame = pandas.concat(parts)
        if not (ratio["status"] == "ok").any():
            continue
        bases = [printable(base, limit=40) for base in sorted(set(ratio["base"]))]
        lacking = "" if any(base.startswith("flash") for base in bases) else "No flash in this run: full is the base."
        told = f"Ratio of medians{_intervals(ratio)}. The line at 1 is {', '.join(bases)}; more is faster."
        alone = f"No ratio at sizes where {bases[0]} has no latency." if (ratio["status"] == ALONE).any() else ""
        drawn.append(
            sheet_over_n(
                Paper(where, ratio, run), label=f"speed-up over {bases[0] if len(bases) == 1 else 'the base'} (×)",
                notes=[told, lacking, alone], suffix=suffix, words=lambda value: f"{value:.3g}×", reference=1.0,
                remark=_base_remark if len(bases) > 1 else None, more_is_better=True,
            )
        )  # fmt: skip
    if not drawn:
        raise Skip("neither flash nor full has a latency at a size where another variant has one")
    return drawn


def ratios(rows: Frame, run: Run) -> Frame | None:
    """The rows of one panel with value and interval turned into speed-ups over its base, named in column `base`."""
    ok = rows[rows["status"] == "ok"]
    base = base_of(ok)
    if base is None:
        return None
    by_n = {row.n: row for row in ok[ok["series"] == base].itertuples()}
    others = rows[rows["series"] != base].assign(base=base)
    speed = [_ratio(by_n.get(row.n), row, run) for row in others.itertuples()]
    for at, name in enumerate(("value", "ci_low", "ci_high", "resampled")):
        others[name] = [triple[at] for triple in speed]
    doubted = {n: reason(row.note) for n, row in by_n.items()}
    others["note"] = [
        note if reason(note) or not doubted.get(n) else f"{MARK}{base}: {doubted[n]}; {note}".rstrip("; ")
        for n, note in zip(others["n"], others["note"], strict=True)
    ]
    alone = (others["status"] == "ok") & others["value"].isna()
    others.loc[alone, ["status", "note"]] = [ALONE, "the base has no latency there"]
    return others


def _base_remark(rows: Frame) -> str:
    return f"1 = {printable(rows['base'].iloc[0], limit=40)}"


def _intervals(ratio: Frame) -> str:
    kinds = {
        True: "95\u00a0% bootstrap intervals",
        False: "the ratio of both 95\u00a0% intervals where samples are missing",
    }
    told = set(ratio.loc[ratio["ci_low"].notna(), "resampled"])
    parts = [kinds[kind] for kind in (True, False) if kind in told]
    return f" with {', or '.join(parts)}" if parts else ""


def _ratio(base: Any, row: Any, run: Run) -> tuple[float, float, float, bool]:
    """(ratio of medians, low, high, whether by resampling): from the raw samples where both are kept."""
    nothing = (math.nan, math.nan, math.nan, False)
    if base is None or not row.value > 0 or not base.value > 0:
        return nothing
    top, bottom = run.samples(base), run.samples(row)
    if top is not None and bottom is not None and (bottom > 0).all():
        draws = min(2000, max(200, DRAWN_VALUES // (len(top) + len(bottom))))
        return *stats.ratio_interval(top, bottom, draws=draws), True
    ratio = base.value / row.value
    if not (row.ci_low > 0 and row.ci_high > 0 and base.ci_low > 0 and base.ci_high > 0):
        return ratio, math.nan, math.nan, False
    return ratio, base.ci_low / row.ci_high, base.ci_high / row.ci_low, False

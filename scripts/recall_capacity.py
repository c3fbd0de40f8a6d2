"""Recall over the bytes of state, a panel an n: how much has a layer to keep of n tokens to answer what they held?

    python scripts/recall_study.py --out results/cpu/recall --steps 500 --part capacity
    python scripts/recall_capacity.py results/cpu/recall         # figures/capacity, and a table on stdout

State is what a token reads of all the others in one layer of one sample, in bytes at float32: keys and values of every
token for softmax attention, values at m anchors for anchor attention (the anchors are parameters). A point is the mean
over the seeds with the range from the lowest to the highest. Only loads of 7/8 of the tokens as items are drawn, and
models of one length of training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.ticker import LogLocator

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from recall_figures import FLOOR, look_of, models, wrapped, write  # noqa: E402

from harness.errors import UsageError  # noqa: E402
from harness.figures._sheet import Page  # noqa: E402
from harness.figures._style import RC  # noqa: E402
from harness.figures._wish import WIDTH  # noqa: E402

FLOAT = 4
# Numbers that a layer of width w in heads of d keeps of n tokens, for all of its heads.
STATE: dict[str, Callable[[int, int, int, int], int]] = {
    "none": lambda n, m, w, d: w,  # the mean of v
    "full": lambda n, m, w, d: 2 * n * w,  # keys and values
    "flash": lambda n, m, w, d: 2 * n * w,
    "anchor": lambda n, m, w, d: m * w,  # values at the anchors
    "transolver": lambda n, m, w, d: m * w,
    "flare": lambda n, m, w, d: m * w,
    "linformer": lambda n, m, w, d: 2 * m * w,  # projected keys and values
    "nystrom": lambda n, m, w, d: 2 * m * w,  # landmarks' keys, and their values after the pseudo-inverse
    "agent": lambda n, m, w, d: 2 * m * w,  # agents and their values
    "linear": lambda n, m, w, d: w * (d + 1),  # Σ φ(k) vᵀ and Σ φ(k)
    "performer": lambda n, m, w, d: w // d * m * (d + 1),  # the same of m features
}


def main() -> None:
    """Draw the figure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, help="of training; by default that of most rows")
    given = parser.parse_args()
    try:
        frame = loaded(models(given.folder, given.steps))
    except UsageError as error:
        sys.exit(f"recall_capacity: {error}")
    print(table(frame))
    target = given.folder / "figures"
    target.mkdir(exist_ok=True)
    with mpl.rc_context(RC):
        write(draw(frame), target, "capacity")


def loaded(frame: pd.DataFrame) -> pd.DataFrame:
    """The models at 7/8 of the tokens as items and one question, with `state` in bytes."""
    chosen = frame[(8 * frame["items"] == 7 * frame["n"]) & (frame["questions"] == 1)]
    chosen = chosen[chosen["attention"].isin(list(STATE))]
    if chosen.empty:
        raise UsageError("no model whose items are 7/8 of its tokens; --part capacity of the study trains them")
    kept = [
        FLOAT * STATE[row.attention](row.n, 0 if pd.isna(row.m) else int(row.m), row.h * row.d, row.d)
        for row in chosen.itertuples()
    ]
    return chosen.assign(state=kept)


def table(frame: pd.DataFrame) -> str:
    """Markdown: one line for each n, attention and m, by the bytes of its state."""
    lines = ["| n | attention | m | bytes of state | seeds | top1, mean | lowest | highest |", "|" + "---|" * 8]
    for (n, state, label, m), group in frame.groupby(["n", "state", "label", frame["m"].fillna(0)]):
        top1 = group["top1"]
        lines.append(
            f"| {n} | {label} | {int(m) or ''} | {state:,} | {len(group)} | {top1.mean():.3f} | {top1.min():.3f} | "
            f"{top1.max():.3f} |"
        )
    return "\n".join(lines)


def draw(frame: pd.DataFrame) -> Any:
    """A panel an n, two or three beside each other: top1 over the bytes of state; dotted is attention removed."""
    sizes = sorted(frame["n"].unique())
    columns = 2 if len(sizes) == 4 else min(3, len(sizes))
    lines = -(-len(sizes) // columns)
    figure = Page(figsize=(WIDTH, 2.6 * lines + 0.9), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes, n in zip(grid.flat, sizes, strict=False):
        own = frame[frame["n"] == n]
        for label, group in own[own["label"] != FLOOR].groupby("label"):
            by = group.groupby("state")["top1"]
            mean = by.mean()
            look = look_of(frame, str(label))
            spread = [(mean - by.min()).clip(lower=0), (by.max() - mean).clip(lower=0)]
            axes.errorbar(mean.index.astype(float), mean, yerr=spread, color=look.color, marker=look.marker, capsize=2,
                          linewidth=1.3, markersize=5, label=str(label))  # fmt: skip
        for floor in own.loc[own["label"] == FLOOR, "top1"]:
            axes.axhline(floor, color="#888888", linewidth=0.9, linestyle=":", zorder=0)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(LogLocator(base=4))
        axes.xaxis.set_major_formatter(lambda value, _: _bytes(value))
        axes.set(title=f"n = {n}, {7 * n // 8} items", ylim=(0, 1.03))
    for axes in grid.flat[len(sizes) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("bytes of state a layer")
    for axes in grid[:, 0]:
        axes.set_ylabel("top-1 on held-out samples")
    told = [axes.get_legend_handles_labels() for axes in grid.flat]
    entries = {name: handle for handles, names in told for handle, name in zip(handles, names, strict=True)}
    figure.legend(
        entries.values(), map(wrapped, entries), loc="outside lower center", frameon=False, fontsize=8.5, ncols=4
    )
    return figure


def _bytes(value: float) -> str:
    """512 and 4k: bytes of a tick, powers of two."""
    return f"{value:.0f}" if value < 1024 else f"{value / 1024:.0f}k"


if __name__ == "__main__":
    main()

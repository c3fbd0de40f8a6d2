"""Draws a recall study in the style of `harness plot`: accuracy against m, the load and FLOPs, the floor in each.

    python scripts/recall_figures.py results/cpu/recall                # figures/ in that folder, and a table on stdout
    python scripts/recall_figures.py results/cpu/recall --steps 500

A point is the mean over the seeds with the range from the lowest to the highest; dots are the seeds themselves. Only
models of one length of training are drawn together: by default of the one with the most rows.
Other n, and many questions a sample, are scripts/recall_capacity.py's.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd

from harness.errors import UsageError
from harness.figures._sheet import Page
from harness.figures._style import FAINT, RC, Look, Looks
from harness.figures._wish import WIDTH
from harness.store.record import parse_options
from harness.store.runs import read

TASK_KEYS = ("task", "shapes", "items", "colours", "steps", "questions")
SAME_M = 16  # of the figure over the load
FLOOR = "none"
TICKS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50)  # MFLOP
COLUMNS, LETTERS = 3, 36  # of a legend, and of a label before it goes on below
LARGEST_MARK, SMALLEST_MARK = 9.5, 4.5  # what lies below is larger, so that equal marks all show


def main() -> None:
    """Write every figure that the rows suffice for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, help="of training; by default that of most rows")
    given = parser.parse_args()
    try:
        frame = usual(models(given.folder, given.steps))
    except UsageError as error:
        sys.exit(f"recall_figures: {error}")
    print(table(frame))
    target = given.folder / "figures"
    target.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        with mpl.rc_context(RC):
            figure = draw(frame)
            if figure is None:
                print(f"{name}: too few rows", file=sys.stderr)
                continue
            write(figure, target, name)


def write(figure: Any, folder: Path, name: str) -> None:
    """name.png and name.svg, without the day they were made."""
    for kind in ("png", "svg"):
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(folder / f"{name}.{kind}", metadata=metadata)


def models(folder: Path, steps: int | None) -> pd.DataFrame:
    """One row a model: label, m, seed, items, shapes, colours, steps, top1, flops. Raises UsageError without any."""
    rows = read(folder)
    rows = rows[
        rows["options"].map(lambda text: parse_options(text).get("task") == "recall") & (rows["status"] == "ok")
    ]
    if rows.empty:
        raise UsageError(f"{folder} holds no recall model; scripts/recall_study.py makes them")
    wide = rows.pivot_table(index="case_id", columns="metric", values="value")
    first = rows.drop_duplicates("case_id").set_index("case_id")
    options = first["options"].map(parse_options)
    frame = first[["attention", "m", "seed", "n", "h", "d"]].join(wide)
    for key in ("shapes", "items", "colours", "steps"):
        frame[key] = options.map(lambda given, key=key: int(given[key]))
    frame["questions"] = options.map(lambda given: int(given.get("questions", 1)))
    frame["label"] = [_label(a, given) for a, given in zip(first["attention"], options, strict=True)]
    held = frame["steps"].value_counts()
    if steps is not None and steps not in held:
        raise UsageError(f"--steps {steps} is not in {folder}; it holds {', '.join(map(str, sorted(held.index)))}")
    return frame[frame["steps"] == (held.index[0] if steps is None else steps)]


def usual(frame: pd.DataFrame) -> pd.DataFrame:
    """The models of 64 tokens and one question."""
    return frame[(frame["n"] == 64) & (frame["questions"] == 1)]


def _label(attention: str, options: dict[str, str]) -> str:
    return " ".join([attention, *(f"{key}={options[key]}" for key in sorted(options) if key not in TASK_KEYS)])


def table(frame: pd.DataFrame) -> str:
    """Markdown: one line for each load, attention and m."""
    lines = ["| shapes | items | attention | m | seeds | top1, mean | lowest | highest | MFLOP |", "|" + "---|" * 9]
    for (shapes, items, label, m), group in frame.groupby(["shapes", "items", "label", frame["m"].fillna(0)]):
        top1 = group["top1"]
        lines.append(
            f"| {shapes} | {items} | {label} | {int(m) or ''} | {len(group)} | {top1.mean():.3f} | {top1.min():.3f} | "
            f"{top1.max():.3f} | {group['flops'].iloc[0] / 1e6:.2f} |"
        )
    return "\n".join(lines)


def against_m(frame: pd.DataFrame) -> Any:
    """top1 over m at the hardest load."""
    hard = frame[frame["items"] == frame["items"].max()]
    sized = hard[hard["m"].notna()]
    if sized["m"].nunique() < 2:
        return None
    figure, axes = _axes(hard, "m: anchors, landmarks or projected length")
    _lines(axes, sized, "m", frame)
    _levels(axes, hard[hard["m"].isna()], frame)
    axes.set_xscale("log", base=2)
    sizes = sorted(sized["m"].astype(int).unique())
    axes.set_xticks(sizes, list(map(str, sizes)))
    axes.minorticks_off()
    return _finish(figure, hard)


def against_load(frame: pd.DataFrame) -> Any:
    """top1 over the number of items at one m."""
    same = frame[frame["m"].isna() | (frame["m"] == SAME_M)]
    if same["items"].nunique() < 2:
        return None
    figure, axes = _axes(same, f"items among 64 tokens, m = {SAME_M} where there is one")
    _lines(axes, same, "items", frame)
    loads = same.drop_duplicates("items").sort_values("items")
    axes.set_xticks(
        loads["items"], [f"{i} of {s} shapes" for i, s in zip(loads["items"], loads["shapes"], strict=True)]
    )
    axes.margins(x=0.09)
    return _finish(figure, same, load=False)


def against_flops(frame: pd.DataFrame) -> Any:
    """top1 over the FLOPs of one sample at the hardest load."""
    hard = frame[frame["items"] == frame["items"].max()].assign(mflop=lambda x: x["flops"] / 1e6)
    figure, axes = _axes(hard, "MFLOP of one sample's forward pass, whole model")
    _lines(axes, hard[hard["label"] != FLOOR], "mflop", frame)
    _levels(axes, hard[hard["label"] == FLOOR], frame)
    low, high = hard["mflop"].min() / 1.08, hard["mflop"].max() * 1.08
    axes.set(xscale="log", xlim=(low, high))
    ticks = [tick for tick in TICKS if low <= tick <= high]
    axes.set_xticks(ticks, list(map(str, ticks)))
    axes.minorticks_off()
    return _finish(figure, hard)


def at_the_easiest(frame: pd.DataFrame) -> Any:
    """top1 at the easiest load, a row an attention: most are equal there, and would hide each other on one axis."""
    if frame["items"].nunique() < 2:
        return None
    easy = frame[frame["items"] == frame["items"].min()]
    names = sorted(easy["label"].unique(), key=lambda label: -easy.loc[easy["label"] == label, "top1"].mean())
    figure = Page(figsize=(WIDTH, 0.27 * len(names) + 1.3), layout="constrained")
    axes = figure.subplots()
    for place, label in enumerate(names):
        own = easy[easy["label"] == label]
        look = look_of(frame, label)
        axes.hlines(place, own["top1"].min(), own["top1"].max(), color=look.color, linewidth=2, alpha=0.5)
        axes.plot([own["top1"].mean()], [place], linestyle="none", zorder=3, **look.point(markersize=6.5))
        words = f"{own['top1'].mean():.3f}   {own['flops'].iloc[0] / 1e6:.2f} MFLOP"
        axes.text(1.04, place, words, va="center", fontsize=8)
    axes.axvline(1 / easy["colours"].iloc[0], color=FAINT, linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, 1.3), ylim=(len(names) - 0.4, -0.6), xlabel="top-1 on held-out samples")
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set_yticks(range(len(names)), [wrapped(name) for name in names], linespacing=0.9)
    axes.grid(visible=False, axis="y")
    return _finish(figure, easy)


def _axes(frame: pd.DataFrame, across: str) -> tuple[Any, Any]:
    figure = Page(figsize=(WIDTH, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=across, ylabel="top-1 on held-out samples", ylim=(0, 1.05))
    axes.axhline(1 / frame["colours"].iloc[0], color=FAINT, linewidth=0.8, linestyle=":", label="chance")
    return figure, axes


def wrapped(label: str) -> str:
    """A label on as many lines as a column of the legend needs."""
    return textwrap.fill(label, LETTERS)


def look_of(frame: pd.DataFrame, label: str) -> Look:
    """The look that `harness plot` gives a variant, shaded where it occurs with several options."""
    looks = Looks(frame.assign(series=frame["label"], backend="reference"))
    return looks.of(label.partition(" ")[0], label)


def _lines(axes: Any, rows: pd.DataFrame, across: str, frame: pd.DataFrame) -> None:
    """Means joined, ranges as bars, seeds as dots; a line a label."""
    labels = sorted(rows["label"].unique())
    for place, label in enumerate(labels):
        group, look = rows[rows["label"] == label], look_of(frame, label)
        by = group.groupby(across)["top1"]
        mean = by.mean()
        x = [float(value) for value in mean.index]
        size = LARGEST_MARK + (SMALLEST_MARK - LARGEST_MARK) * place / max(1, len(labels) - 1)
        axes.vlines(x, by.min(), by.max(), color=look.color, linewidth=1.6, alpha=0.6)
        axes.plot(x, mean, label=label, **{**look.line(markersize=size), "linestyle": "-", "linewidth": 1.4})
        axes.plot(group[across].astype(float), group["top1"], ".", color=look.color, markersize=3, alpha=0.6)


def _levels(axes: Any, group: pd.DataFrame, frame: pd.DataFrame) -> None:
    """What has no place on the axis: a line at its mean and a band of its range; the floor among them."""
    for place, (label, rows) in enumerate(group.groupby("label")):
        look = look_of(frame, str(label))
        name = "attention removed (floor)" if label == FLOOR else str(label)
        dash = (4 * place, (4, 4)) if label != FLOOR else (0, (6, 2, 1, 2))
        axes.axhline(rows["top1"].mean(), color=look.color, linewidth=1.4, linestyle=dash, label=name)
        axes.axhspan(rows["top1"].min(), rows["top1"].max(), color=look.color, alpha=0.12, linewidth=0)


def _finish(figure: Any, frame: pd.DataFrame, *, load: bool = True) -> Any:
    """The legend in rows and the caption below the axes, over the whole width."""
    first, seeds = frame.iloc[0], frame.groupby(["label", "items", frame["m"].fillna(-1)])["seed"].nunique()
    where = f"{first['items']} items of {first['shapes']} shapes, " if load else ""
    counted = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    caption = (
        f"Associative recall: {where}{first['colours']} colours, n = 64, width 64, 4 heads, depth 2, {first['steps']} "
        f"steps.\nMarks: mean of {counted} seeds (dots). Bars: lowest to highest seed. Thin dotted line: chance."
    )
    below = 0.38 / figure.get_figheight()
    figure.text(0.06 / WIDTH, 0.05 / figure.get_figheight(), caption, fontsize=8, color="#555555", va="bottom")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        labels, each = [wrapped(label) for label in labels], -(-len(handles) // COLUMNS)
        tall = max(sum(label.count("\n") + 1 for label in labels[at : at + each]) for at in range(0, len(labels), each))
        figure.legend(
            handles, labels, loc="lower center", ncols=COLUMNS, bbox_to_anchor=(0.5, below), handlelength=2.2,
            columnspacing=1.4, fontsize=8.5,
        )  # fmt: skip
        below += (0.21 * tall + 0.1) / figure.get_figheight()
    figure.get_layout_engine().set(rect=(0, below, 1, 1 - below))
    return figure


FIGURES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "top1-over-m": against_m,
    "top1-over-load": against_load,
    "top1-easy": at_the_easiest,
    "pareto-hard": against_flops,
}

if __name__ == "__main__":
    main()

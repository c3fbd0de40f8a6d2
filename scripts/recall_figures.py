"""Draws a recall study: accuracy against m, against the load and against FLOPs, the floor as a line in each.

    python scripts/recall_figures.py results/cpu/recall                # figures/ in that folder, and a table on stdout
    python scripts/recall_figures.py results/cpu/recall --steps 500

A point is the mean over the seeds with the range from the lowest to the highest; dots are the seeds themselves. Only
models of one length of training are drawn together: by default of the one with the most rows.
Other n, and many questions a sample, are scripts/recall_capacity.py's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd

from harness.errors import UsageError
from harness.store.record import parse_options
from harness.store.runs import read

TASK_KEYS = ("task", "shapes", "items", "colours", "steps", "questions")
SAME_M = 16  # of the figure over the load
LOOKS = {
    "none": ("#8a8a8a", "x"), "full": ("#222222", "o"), "flash": ("#0072B2", "s"), "linformer": ("#009E73", "v"),
    "nystrom": ("#CC79A7", "p"), "anchor init=paper": ("#E69F00", "D"), "anchor init=sharp": ("#D55E00", "^"),
    "anchor init=orthogonal logits=cosine": ("#882255", "*"),
}  # fmt: skip
FURTHER = ("#332288", "X")


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
    mpl.use("Agg")
    plt.rcParams.update({"font.size": 9.5, "axes.grid": True, "grid.color": "#e3e3e3", "svg.hashsalt": "harness"})
    target = given.folder / "figures"
    target.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        figure = draw(frame)
        if figure is None:
            print(f"{name}: too few rows", file=sys.stderr)
            continue
        for kind in ("png", "svg"):
            figure.savefig(target / f"{name}.{kind}", dpi=200, metadata={"Date": None} if kind == "svg" else None)
        plt.close(figure)


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
    for label, group in sized.groupby("label"):
        _line(axes, str(label), group, "m")
    _levels(axes, hard[hard["m"].isna()])
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(sized["m"].astype(int).unique()), sorted(sized["m"].astype(int).unique()))
    return _finish(figure, axes)


def against_load(frame: pd.DataFrame) -> Any:
    """top1 over the number of items at one m."""
    same = frame[frame["m"].isna() | (frame["m"] == SAME_M)]
    if same["items"].nunique() < 2:
        return None
    figure, axes = _axes(same, f"items among 64 tokens, m = {SAME_M}", load=False)
    for label, group in same.groupby("label"):
        _line(axes, str(label), group, "items")
    loads = same.drop_duplicates("items").sort_values("items")
    axes.set_xticks(
        loads["items"], [f"{i} of {s} shapes" for i, s in zip(loads["items"], loads["shapes"], strict=True)]
    )
    return _finish(figure, axes)


def pareto(items: Callable[[pd.Series], int], *, loads: int = 1) -> Callable[[pd.DataFrame], Any]:
    """top1 over the FLOPs of one sample, at the load that `items` chooses where there are at least so many."""

    def draw(frame: pd.DataFrame) -> Any:
        if frame["items"].nunique() < loads:
            return None
        chosen = frame[frame["items"] == items(frame["items"])].assign(mflop=lambda x: x["flops"] / 1e6)
        figure, axes = _axes(chosen, "MFLOP of one sample's forward pass, whole model")
        for label, group in chosen[chosen["label"] != "none"].groupby("label"):
            _line(axes, str(label), group, "mflop")
        _levels(axes, chosen[chosen["label"] == "none"])
        return _finish(figure, axes)

    return draw


def _axes(frame: pd.DataFrame, across: str, *, load: bool = True) -> tuple[Any, Any]:
    figure, axes = plt.subplots(figsize=(8.0, 4.6), layout="constrained")
    first = frame.iloc[0]
    where = f"{first['items']} items of {first['shapes']} shapes, " if load else ""
    axes.set_title(
        f"Associative recall: {where}{first['colours']} colours, n = 64, width 64, 4 heads, depth 2, "
        f"{first['steps']} steps", loc="left", fontsize=9.5,
    )  # fmt: skip
    axes.set(xlabel=across, ylabel="top-1 on held-out samples", ylim=(0, 1.03))
    axes.axhline(1 / first["colours"], color="#bbbbbb", linewidth=0.8, linestyle=":", label="chance")
    return figure, axes


def _look(label: str) -> tuple[str, str]:
    return LOOKS.get(label, FURTHER)


def _line(axes: Any, label: str, group: pd.DataFrame, across: str) -> None:
    """Means joined, ranges as bars, seeds as dots."""
    color, marker = _look(label)
    by = group.groupby(across)["top1"]
    x, mean = [float(value) for value in by.mean().index], by.mean()
    spread = [(mean - by.min()).clip(lower=0), (by.max() - mean).clip(lower=0)]  # equal values' mean may round
    counts = group.groupby(across)["seed"].nunique()
    seeds = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    name = f"{label}, seeds: {seeds}"
    axes.errorbar(x, mean, yerr=spread, color=color, marker=marker, capsize=3, linewidth=1.4, markersize=6, label=name)
    axes.plot(group[across].astype(float), group["top1"], ".", color=color, markersize=3, alpha=0.6)


def _levels(axes: Any, group: pd.DataFrame) -> None:
    """What has no place on the axis: a line at its mean and a band of its range; the floor among them."""
    for label, rows in group.groupby("label"):
        color, _ = _look(str(label))
        name = "attention removed (floor)" if label == "none" else str(label)
        axes.axhline(
            rows["top1"].mean(), color=color, linewidth=1.2, linestyle="--", label=f"{name}, seeds: {len(rows)}"
        )
        axes.axhspan(rows["top1"].min(), rows["top1"].max(), color=color, alpha=0.12, linewidth=0)


def _finish(figure: Any, axes: Any) -> Any:
    legend = axes.legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    legend.set_title("mean; bars: lowest to highest seed", prop={"size": 8.5})
    return figure


FIGURES = {
    "top1-over-m": against_m,
    "top1-over-load": against_load,
    "pareto-easy": pareto(min, loads=2),
    "pareto-hard": pareto(max),
}

if __name__ == "__main__":
    main()

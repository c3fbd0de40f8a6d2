"""Draws a family study: of each problem a row a member, accuracy beside the time of a call, the best at its time bold.

    python scripts/family_figures.py results/cpu/family                # figures/ in that folder, from its family.csv

Bold names are the Pareto front: nothing that takes no longer is better. Members without a latency stand in no front.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))

from recall_figures import look_of, wrapped, write

from harness.figures._sheet import Page
from harness.figures._style import RC
from harness.figures._wish import WIDTH
from harness.store.record import LESS_IS_BETTER, merit

NAMES = {"top1": "top-1 on held-out samples", "relative_l2": "relative L2 error", "miou": "mean IoU"}
FLOOR, EXACT = "none", "full"
FEWEST = 4  # members, for a figure


def main() -> None:
    """Write a figure for each problem and m that has members enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    try:
        lines = pd.read_csv(given.folder / "family.csv", keep_default_na=False)
    except OSError as error:
        sys.exit(f"family_figures: {error}")
    target = given.folder / "figures"
    target.mkdir(exist_ok=True)
    for name, own in problems(lines).items():
        with mpl.rc_context(RC):
            write(drawn(own), target, name)
        print(target / f"{name}.png")


def problems(lines: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The lines of each problem and m with members enough, by name, best first; what has no m is in all."""
    numbers = {name: pd.to_numeric(lines[name], errors="coerce") for name in ("m", "latency_ms")}
    lines = lines.assign(label=lines["attention"] + lines["options"], **numbers)
    found = {}
    for problem, own in lines.groupby("problem", sort=False):
        sizes = [m for m in sorted(own["m"].dropna().unique()) if (own["m"] == m).sum() >= FEWEST]
        for m in sizes:
            members = own[own["m"].isna() | (own["m"] == m)]
            order = [-merit(metric, mean) for metric, mean in zip(members["metric"], members["mean"], strict=True)]
            name = f"{problem}-{m:.0f}" if len(sizes) > 1 else str(problem)
            found[name] = members.assign(order=order).sort_values("order")
    return found


def front(lines: pd.DataFrame) -> list[str]:
    """Labels of those that nothing beats at their latency or less; the floor is none of them."""
    best, found = float("-inf"), []
    timed = lines[lines["latency_ms"].notna() & (lines["label"] != FLOOR)]
    timed = timed.assign(merit=[merit(*each) for each in zip(timed["metric"], timed["mean"], strict=True)])
    for line in timed.sort_values(["latency_ms", "merit"], ascending=[True, False]).itertuples():
        if line.merit > best:
            best = line.merit
            found.append(line.label)
    return found


def drawn(lines: pd.DataFrame) -> Any:
    """Accuracy on the left, with each seed, and the latency of one sample on the right."""
    first = lines.iloc[0]
    figure = Page(figsize=(WIDTH, 0.25 * len(lines) + 1.5), layout="constrained")
    accuracy, time = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for place, line in enumerate(lines.itertuples()):
        look = look_of(lines, line.label)
        seeds = [float(value) for value in str(line.values).split()]
        accuracy.hlines(place, line.lowest, line.highest, color=look.color, linewidth=2, alpha=0.5)
        accuracy.plot(seeds, [place] * len(seeds), ".", color=look.color, markersize=4)
        accuracy.plot([line.mean], [place], linestyle="none", zorder=3, **look.point(markersize=6.5))
        time.plot([line.latency_ms], [place], linestyle="none", **look.point(markersize=6.5))
    for label, dash in ((FLOOR, ":"), (EXACT, "--")):
        for mean in lines.loc[lines["label"] == label, "mean"]:
            accuracy.axvline(mean, color="#888888", linewidth=0.9, linestyle=dash, zorder=0)
    names = ["attention removed" if label == FLOOR else label for label in lines["label"]]
    accuracy.set_yticks(range(len(lines)), [wrapped(name) for name in names], linespacing=0.9)
    for tick, label in zip(accuracy.get_yticklabels(), lines["label"], strict=True):
        tick.set_fontweight("bold" if label in front(lines) else "normal")
    less = ", less is better" if first["metric"] in LESS_IS_BETTER else ""
    accuracy.set(xlabel=NAMES[first["metric"]] + less, ylim=(len(lines) - 0.4, -0.6))
    time.set(xlabel="ms a sample", xlim=(0, None))
    for axes in (accuracy, time):
        axes.grid(visible=False, axis="y")
    least, most = lines["seeds"].min(), lines["seeds"].max()
    counted = f"{most}" if least == most else f"{least} to {most}"
    size = f", m = {lines['m'].max():.0f} where there is one"
    caption = (
        f"{first['problem'].capitalize()}{size}. Marks: mean of {counted} seeds (dots). Dashed: "
        "exact attention.\nDotted: attention removed. Bold: nothing that takes no longer is better."
    )
    figure.text(0.06 / WIDTH, 0.05 / figure.get_figheight(), caption, fontsize=8, color="#555555", va="bottom")
    below = 0.42 / figure.get_figheight()
    figure.get_layout_engine().set(rect=(0, below, 1, 1 - below))
    return figure


if __name__ == "__main__":
    main()

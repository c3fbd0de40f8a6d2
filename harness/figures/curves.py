"""Curves of a training: losses and learning rate, and what the validation said, over the steps."""

from __future__ import annotations

from typing import Any

from matplotlib.ticker import MaxNLocator

from harness.figures import Run, Sheet, Skip
from harness.figures._sheet import Page
from harness.figures._style import FAINT, INK, LOOKS
from harness.store.curves import CURVES, read_curves
from harness.store.rows import is_there
from harness.store.selection import Frame

COLOURS = [color for color, _ in LOOKS.values()]
OTHER = ("lr", "gradient")


def draw(run: Run) -> list[Sheet]:
    """One file: losses on the left, the validation's metrics on the right."""
    if not is_there(run.folder / CURVES):
        raise Skip(f"this run has no {CURVES}: it is not a training")
    frame: Frame = read_curves(run.folder)
    train, val = frame[frame["split"] == "train"], frame[frame["split"] == "val"]
    if train.empty:
        raise Skip(f"{CURVES} holds no step yet")
    figure = Page(figsize=(run.wish.width, run.wish.height or 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    _lines(left, train[~train["metric"].isin(OTHER)], smooth=True)
    left.set_ylabel("training loss")
    _rate(left, train[train["metric"] == "lr"])
    if val.empty:
        right.set_visible(False)
    else:
        _lines(right, val, smooth=False)
        right.set_ylabel("validation")
        right.set_ylim(0, max(1e-3, val["value"].max() * 1.08))  # shares: 0 is where they start
    return [Sheet(figure)]


def _lines(axes: Any, frame: Frame, *, smooth: bool) -> None:
    """A line a metric; a long training's raw losses faint behind their running mean."""
    for place, (name, own) in enumerate(frame.groupby("metric", sort=False)):
        color = COLOURS[place % len(COLOURS)]
        own = own.dropna(subset=["value"])
        window = max(1, len(own) // 50)
        if smooth and window > 2:
            axes.plot(own["step"], own["value"], color=color, linewidth=0.6, alpha=0.3)
            own = own.assign(value=own["value"].rolling(window, min_periods=1, center=True).mean())
        axes.plot(own["step"], own["value"], color=color, linewidth=1.5, marker="" if smooth else "o", markersize=3,
                  label=str(name))  # fmt: skip
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.legend(loc="best", fontsize=8, labelcolor=INK)


def _rate(axes: Any, lr: Frame) -> None:
    other = axes.twinx()
    other.plot(lr["step"], lr["value"], color=FAINT, linewidth=0.9, linestyle=(0, (4, 2)))
    other.set_ylabel("learning rate (dashed)", color=FAINT)
    other.set_ylim(bottom=0)
    other.tick_params(axis="y", labelcolor=FAINT)
    other.grid(visible=False)

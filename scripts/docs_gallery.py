"""The gallery of the site: every kind of figure, the report and the terminal, each with the command that makes it.

The page is made as the site is built (scripts/docs_hook.py), of the figures that stored runs hold. Adding a kind of
figure is adding a line here, and tests/test_docs.py says which is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Picture:
    """A picture by its path from docs/, what it shows, and the command that makes it. figure: its name in `plot`."""

    title: str
    path: str
    command: str
    words: str
    figure: str = ""


def _of(run: str, figure: str, title: str, words: str) -> Picture:
    """A figure of a stored run; of several files the one of a forward pass in the first dtype."""
    files = sorted((ROOT / run / "figures").glob(f"{figure}*.png"))
    file = min(files, key=lambda path: ("forward" not in path.stem, "bfloat16" in path.stem, path.stem != figure))
    return Picture(title, f"../{run}/figures/{file.name}", f"harness plot {run} --figure {figure}", words, figure)


PICTURES = (
    _of("results/h200/sweep", "latency", "Latency over tokens", "Medians with intervals; crosses where a size failed."),
    _of("results/h200/sweep", "speedup", "Speed-up", "Over the fastest flash at the same n; above 1 is faster."),
    _of("results/cpu/sweep", "memory", "Memory", "Most bytes alive above the inputs in one call."),
    _of("results/cpu/sweep", "heatmap", "n × m", "Each cell a latency, coloured by its speed-up."),
    _of("results/h200/sweep", "error", "Error and time", "What is exact is a line."),
    _of("results/h200/sweep", "roofline", "Roofline", "Under a copy and a product measured on the same device."),
    _of("results/cpu/sweep", "scaling", "Scaling", "Fitted exponents beside the declared ones."),
    _of("results/cpu/models", "resolution", "Whole models", "Latency, multiply-adds and memory over the images' side."),
    _of("results/cpu/legend", "pareto", "Accuracy and cost", "Means over seeds; dashed the floor without attention."),
    _of("results/cpu/problems/cross", "keys", "Grouped and cross attention", "Latency over the number of keys."),
    Picture("Recall", "../results/cpu/recall/figures/top1-over-m.png",
            "python scripts/recall_figures.py results/cpu/recall", "What m tokens of bottleneck can look up."),
    Picture("A family", "../results/cpu/family/figures/darcy.png",
            "python scripts/family_figures.py results/cpu/family", "Every member's error, each seed, and its time."),
    Picture("The report", "report.png", "harness report results/h200/sweep", "One file, to be sent to others."),
    Picture("The terminal", "terminal.svg", "harness show results/cpu/sweep --phase forward --dtype float32 --m 64",
            "Eighty columns; intervals, and reasons where there is no figure."),
)  # fmt: skip
NOT_HERE = {"curves"}  # of trainings: no stored run holds any


def page() -> str:
    """The gallery in Markdown."""
    parts = ["# Gallery", "Every figure, the report and the terminal, each with its command; all of stored runs."]
    for one in PICTURES:
        parts += [f"## {one.title}", one.words, f"![{one.title}]({one.path})", f"```\n{one.command}\n```"]
    return "\n\n".join(parts) + "\n"

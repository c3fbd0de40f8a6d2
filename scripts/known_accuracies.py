"""The accuracies that answers tell beside a speed: harness/answers/known.csv, made of this project's own studies.

    python scripts/known_accuracies.py            # 1 where the table is not what the studies say
    python scripts/known_accuracies.py --write    # after a study ran again

A study is told where it separates attentions: recall, digits, the pictures with a legend, and the two differential
equations. The generated scenes without a legend do not (results/cpu/vision/README.md) and are left out, and so are
recall's longer sequences and many questions, one seed each so far (results/cpu/recall/README.md).
tests/scripts/test_known_accuracies.py repeats it.
"""

from __future__ import annotations

import csv
import io
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import attentions
from harness import figures
from harness.answers.known import COLUMNS, SHIPPED, Reached, of_frame
from harness.store.record import parse_options
from harness.store.selection import Frame

ROOT = Path(__file__).resolve().parents[1]
STUDIES = (  # what a task is called, its run, and what its rows say of it
    ("recall", "results/cpu/recall", {"task": "recall"}), ("digits", "results/cpu/family", {"task": "classification"}),
    ("legend-segmentation", "results/cpu/legend", {"task": "segmentation"}),
    ("legend-detection", "results/cpu/legend", {"task": "detection"}),
    ("darcy", "results/cpu/family", {"model.equation": "darcy"}),
    ("darcy", "results/cpu/family_long", {"model.equation": "darcy"}),
    ("poisson", "results/cpu/family", {"model.equation": "poisson"}),
)  # fmt: skip
USUAL_TOKENS = 65  # those of recall's models with three seeds


def table() -> list[Reached]:
    """What the studies hold now, in their order."""
    defaults = {
        name: {option: str(value) for option, value in attentions.spec(name).defaults.items()}
        for name in attentions.names()
    }
    frames = [_rows(name, folder, says) for name, folder, says in STUDIES]
    options: dict[str, set[str]] = {name: set() for name, *_ in STUDIES}
    for (name, *_), own in zip(STUDIES, frames, strict=True):
        options[name].update(own["options"])
    found: list[Reached] = []
    for (name, folder, _), own in zip(STUDIES, frames, strict=True):
        reached = of_frame(own, source=folder, task=name, defaults=defaults, beside=sorted(options[name]))
        reached = [replace(one, problem=_without_points(one.problem)) for one in reached]
        found += sorted(reached, key=lambda one: (one.problem, one.attention, one.options, one.m or 0))
    return found


def _rows(name: str, folder: str, says: dict[str, str]) -> Frame:
    frame = _loaded(folder)
    own = frame[frame["options"].map(parse_options).map(
        lambda options: says.items() <= options.items() and "questions" not in options
    )]  # fmt: skip
    return own[(own["n"] <= USUAL_TOKENS) | (name != "recall")]


@cache
def _loaded(folder: str) -> Frame:
    return figures.load(ROOT / folder).frame


def _without_points(problem: str) -> str:
    """Of a differential equation n is the number of points."""
    return " ".join(word for word in problem.split() if not word.startswith("points="))


def as_csv(reached: list[Reached]) -> str:
    """The table as the package holds it; means rounded to six digits, far below what a seed changes."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in reached:
        values = [getattr(one, name) for name in COLUMNS]
        writer.writerow(["" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in values])
    return out.getvalue()


if __name__ == "__main__":
    text = as_csv(table())
    if sys.argv[1:] == ["--write"]:
        SHIPPED.write_text(text, encoding="utf-8")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    elif not SHIPPED.is_file() or SHIPPED.read_text(encoding="utf-8") != text:
        sys.exit(f"{SHIPPED.relative_to(ROOT)} is not what the studies say; renew it with --write")

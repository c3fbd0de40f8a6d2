"""The accuracies that answers tell beside a speed: harness/answers/known.csv, made of this project's own studies.

    python scripts/known_accuracies.py            # 1 where the table is not what the studies say
    python scripts/known_accuracies.py --write    # after a study ran again

A study is told where it separates attentions: recall, digits, and the pictures with a legend. The generated scenes
without one do not (results/cpu/vision/README.md) and are left out, and so are recall's longer sequences and many
questions, one seed each so far (results/cpu/recall/README.md). tests/scripts/test_known_accuracies.py repeats it.
"""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import attentions
from harness import figures
from harness.answers.known import COLUMNS, SHIPPED, Reached, of_frame
from harness.store.record import parse_options

ROOT = Path(__file__).resolve().parents[1]
STUDIES = (  # what a task is called, its run, and the rows' own word for it
    ("recall", "results/cpu/recall", "recall"), ("digits", "results/cpu/vision", "classification"),
    ("legend-segmentation", "results/cpu/legend", "segmentation"),
    ("legend-detection", "results/cpu/legend", "detection"),
)  # fmt: skip
USUAL_TOKENS = 65  # those of every study's models but recall's longer ones


def table() -> list[Reached]:
    """What the studies hold now, in their order."""
    defaults = {
        name: {option: str(value) for option, value in attentions.spec(name).defaults.items()}
        for name in attentions.names()
    }
    found: list[Reached] = []
    for name, folder, task in STUDIES:
        frame = figures.load(ROOT / folder).frame
        told = frame["options"].map(parse_options)
        own = frame[told.map(lambda options, task=task: options.get("task") == task and "questions" not in options)]
        own = own[own["n"] <= USUAL_TOKENS]
        reached = of_frame(own, source=folder, task=name, defaults=defaults)
        found += sorted(reached, key=lambda one: (one.problem, one.attention, one.options, one.m or 0))
    return found


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

"""docs/data.md: what colours alone tell of a scene."""

from __future__ import annotations

from quotes import Page

PAGE = "docs/data.md"


def quote(page: Page) -> None:
    rows = page.rows("results/cpu/scene_colour_floor.csv")
    areas, both = (
        [rows.one("top1", features=features, classifier=name) for name in ("logistic regression", "gradient boosting")]
        for features in ("areas", "areas and histogram")
    )
    first = rows.rows[0]
    page.say(
        "trained on {} scenes of shapes of {} pixels (seed {}) and judged on {} others, reaches {:.3f} (logistic "
        "regression) or {:.3f} (gradient boosting); with a histogram of 512 bins as well, {:.3f} or {:.3f}. The most "
        "frequent class alone gives {:.3f}.",
        *(first[name] for name in ("train", "size", "seed", "val")), *areas, *both, float(first["chance"]),
    )  # fmt: skip

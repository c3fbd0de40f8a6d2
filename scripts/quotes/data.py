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
        "From {} scenes of shapes of {} pixels (seed {}) and judged on {} others, where the most frequent "
        "class has {:.3f}: "
        "the six colours' areas {:.3f} by logistic regression and {:.3f} by gradient boosting; with a "
        "histogram of 512 bins "
        "beside them {:.3f} and {:.3f}",
        *(first[name] for name in ("train", "size", "seed", "val")), float(first["chance"]), *areas, *both,
    )  # fmt: skip

"""docs/training.md: what came out of the two vision studies."""

from __future__ import annotations

from quotes import Page, Rows, option

PAGE = "docs/training.md"


def quote(page: Page) -> None:
    digits = page.rows("results/cpu/vision").where(metric="top1", options=option(task="classification"))
    page.say(
        "on digits, three seeds, `full` {:.3f}, with anchors that start as published (`init=paper`; the "
        "linear layers start "
        "as timm's in all of them) {:.3f}, as they start here {:.3f}, the floor {:.3f}.",
        _mean(digits, attention="full"), _mean(digits, options=option(init="paper")),
        _mean(digits, options=option(init="sharp")), _mean(digits, attention="none"),
    )  # fmt: skip
    legend = page.rows("results/cpu/legend")
    regions, boxes = legend.where(metric="miou"), legend.where(metric="map")
    page.say(
        "the floor is at {:.3f} mean IoU and {:.3f} box AP, anchors that start sharp at {:.3f} and {:.3f}.",
        *(_mean(rows, attention="none") for rows in (regions, boxes)),
        *(_mean(rows, options=option(init="sharp")) for rows in (regions, boxes)),
    )  # fmt: skip


def _mean(rows: Rows, **wanted: object) -> float:
    values = rows.all(**wanted)
    return sum(values) / len(values)

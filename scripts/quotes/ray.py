"""docs/ray.md: what going through Ray costs."""

from __future__ import annotations

from quotes import Page

PAGE = "docs/ray.md"


def quote(page: Page) -> None:
    rows = page.rows("results/cpu/ray_overhead.csv")
    ratios = [
        rows.one("seconds", pair=pair, engine="ray") / rows.one("seconds", pair=pair, engine="local") for pair in (0, 1)
    ]
    page.say("The same {:.0f} cases took {:.2f} times as long", rows.all("cases")[0], sum(ratios) / 2)
    page.say("(two pairs in turns: {:.3f} and {:.3f};", *sorted(ratios))

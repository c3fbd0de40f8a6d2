"""docs/gpu.md: what the suite's sweep took."""

from __future__ import annotations

from quotes import Page

PAGE = "docs/gpu.md"


def quote(page: Page) -> None:
    took = page.json("results/h200/sweep/environment.json")
    cases = {row["case_id"] for row in page.rows("results/h200/sweep")}
    page.say(
        "the sweep, {} cases, took {:.0f} s, {:.0f} % of it measuring.",
        str(len(cases)), took["wall_s"], 100 * took["measuring_s"] / took["wall_s"],
    )  # fmt: skip

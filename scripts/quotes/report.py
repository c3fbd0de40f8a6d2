"""docs/report.md: how large a report is and how long a browser takes to open it."""

from __future__ import annotations

from quotes import Page

PAGE = "docs/report.md"


def quote(page: Page) -> None:
    opened = page.json("results/cpu/report_opening.json")
    page.say("make a file of {:.1f} MB ({:,.0f} bytes)", opened["bytes"] / 1e6, opened["bytes"])
    seconds = [milliseconds / 1e3 for milliseconds in opened["opening_ms"]]
    page.say("opened it in {:.1f} s (three times: {:.2f}, {:.2f}, {:.2f};", opened["median_opening_ms"] / 1e3, *seconds)

"""results/cpu/vision: its table."""

from __future__ import annotations

from quotes import Page
from quotes._studies import HEADER, body

PAGE = "results/cpu/vision/README.md"


def quote(page: Page) -> None:
    page.table(HEADER, body(page.rows("results/cpu/vision")))

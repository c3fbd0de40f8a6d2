"""results/cpu/legend: its table."""

from __future__ import annotations

from quotes import Page
from quotes._studies import HEADER, body

PAGE = "results/cpu/legend/README.md"


def quote(page: Page) -> None:
    page.table(HEADER, body(page.rows("results/cpu/legend")))

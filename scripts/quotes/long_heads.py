"""docs/long_heads.md: what the compiler says of the forms that no device has timed."""

from __future__ import annotations

from quotes import Page

PAGE = "docs/long_heads.md"


def quote(page: Page) -> None:
    found = []
    for version in ("3.9.0", "3.6.0"):
        rows = page.rows(f"results/compiler/forms_triton_{version}.csv")
        registers = rows.where(kernel="skewed_kernel", form="skewed").all("registers")
        found += [min(registers), max(registers)]
    page.say("`skewed` takes {:.0f} to {:.0f} registers (3.9) and {:.0f} to {:.0f} (3.6)", *found)

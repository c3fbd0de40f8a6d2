"""docs/models.md: what whole models take on two CPU cores."""

from __future__ import annotations

from quotes import Page, option

PAGE = "docs/models.md"


def quote(page: Page) -> None:
    tiny = page.rows("results/cpu/models").where(options=option(model="anchorformer_tiny"), phase="forward")
    page.table(
        "| tiny | m | 224² | 448² | 896² |",
        [[name, m, *(tiny.where(options=option(resolution=side)).cell(attention=name, m=m)
                     for side in ("224", "448", "896"))]
         for name, m in (("full", ""), ("flash", ""), ("anchor", "30"))],
    )  # fmt: skip

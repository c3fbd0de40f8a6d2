"""docs/operators.md: how far attentions are told apart by the two equations."""

from __future__ import annotations

from quotes import Page, Rows

PAGE = "docs/operators.md"
MEMBERS = {
    "`full`": ("full", ""), "`anchor init=sharp`": ("anchor", " init=sharp"),
    "`anchor self=excluded`": ("anchor", " self=excluded"), "`flare`": ("flare", ""),
    "`transolver`": ("transolver", ""), "`none`, the floor": ("none", ""),
}  # fmt: skip


def quote(page: Page) -> None:
    rows = page.rows("results/cpu/family/family.csv")
    page.table(
        f"| | {' | '.join(MEMBERS)} |",
        [[equation.capitalize(), *(_error(rows, equation, *member) for member in MEMBERS.values())]
         for equation in ("darcy", "poisson")],
    )  # fmt: skip


def _error(rows: Rows, equation: str, attention: str, options: str) -> str:
    """The mean over the seeds, to three digits; empty where it was not trained."""
    found = rows.where(problem=equation, attention=attention, options=options, metric="relative_l2").rows
    return f"{float(found[0]['mean']):.3f}" if found else ""

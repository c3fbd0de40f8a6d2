"""Tables of a run as Python users hold them: text in a terminal, HTML in a notebook, Markdown and LaTeX for a paper.

tables = run.table("latency", rows=["attention", "m"], columns="n")
print(tables.to_markdown())
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.store import markup, pivot, table


@dataclass(frozen=True, repr=False)
class Tables:
    """One table a machine, device, scope and whatever else is not to be mixed; harness.store.pivot makes them."""

    tables: tuple[pivot.Table, ...]

    def __iter__(self) -> Iterator[pivot.Table]:
        return iter(self.tables)

    def __len__(self) -> int:
        return len(self.tables)

    def __repr__(self) -> str:
        return table.render(self.tables).rstrip("\n")

    def _repr_html_(self) -> str:
        return "\n".join(map(markup.html, self.tables))

    def to_markdown(self, *, note: str = "") -> str:
        """Medians ± half their 95 % interval, a status where there is no value; tables below each other.

        note: below each, such as `Run.caption`, which names device, versions and command.
        """
        return "\n".join(markup.markdown(one, note=note) for one in self.tables)

    def to_latex(self, *, note: str = "") -> str:
        """The same for LaTeX; needs the package booktabs. note: at the end of each caption."""
        return "\n".join(markup.latex(one, note=note) for one in self.tables)

    def to_csv(self, *, intervals: bool = False) -> str:
        """All tables as one CSV, unrounded; with the ends of each interval beside its value, or without."""
        return pivot.as_csv(self.tables, intervals=intervals)

    def as_json(self) -> list[dict[str, Any]]:
        """Plain data: values and intervals unrounded, statuses and notes."""
        return [pivot.as_json(one) for one in self.tables]

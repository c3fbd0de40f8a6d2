"""harness compare A B: two stored runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from harness.cli._rows import with_filters


@with_filters
def command(
    which: dict[str, Any],
    a: Path = typer.Argument(help="The run that figures are compared against, or a folder that holds runs."),
    b: list[Path] = typer.Argument(help="The other run, ratios are B over A; several are each compared with A."),
    metrics: str = typer.Option("latency", "--metrics", help="Metrics by comma."),
    as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout."),
) -> int:
    """Compare stored runs case by case: the ratio B/A with its interval, and what it does not show."""
    import json

    from harness.door.answers import compare
    from harness.errors import NOTHING, OK
    from harness.store.table import write

    found = [compare(a, each, metrics=metrics, **which) for each in b]
    if as_json:
        told = [one.as_json() for one in found]
        write(json.dumps(told[0] if len(told) == 1 else {"comparisons": told}, indent=2, allow_nan=False) + "\n")
    else:
        heads = [f"{one.a} → {one.b}\n" if len(found) > 1 else "" for one in found]
        write("\n\n".join(f"{head}{one!r}" for head, one in zip(heads, found, strict=True)) + "\n")
    return OK if any(one.comparable for one in found) else NOTHING

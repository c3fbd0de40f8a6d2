"""harness compare A B: two stored runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from harness.cli._rows import with_rows


@with_rows
def command(
    which: dict[str, Any],
    a: Path = typer.Argument(help="The run folder that figures are compared against."),
    b: Path = typer.Argument(help="The other run folder; ratios are B over A."),
    metrics: str = typer.Option("latency", "--metrics", help="Metrics by comma."),
    as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout."),
) -> int:
    """Compare two stored runs case by case: the ratio B/A with its interval, and what it does not show."""
    import json

    from harness.door.answers import compare
    from harness.errors import NOTHING, OK
    from harness.store.table import write

    found = compare(a, b, metrics=metrics, **which)
    write((json.dumps(found.as_json(), indent=2, allow_nan=False) if as_json else repr(found)) + "\n")
    return OK if found.comparable else NOTHING

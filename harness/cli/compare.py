"""harness compare A B: two stored runs side by side."""

from __future__ import annotations

from pathlib import Path

import typer


def command(
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

    found = compare(a, b, metrics=metrics)
    write((json.dumps(found.as_json(), indent=2, allow_nan=False) if as_json else repr(found)) + "\n")
    return OK if found.comparable else NOTHING

"""harness history "anchor n=4096 m=64": a case over commits and time, and where it stepped."""

from __future__ import annotations

from pathlib import Path

import typer


def command(
    benchmark: str = typer.Argument(help="A case as it is printed, as far as needed: 'anchor n=4096 m=64'; or its id."),
    source: list[Path] = typer.Argument(
        None, show_default=False, help="Runs, folders of runs, baselines, histories of check. Default: results."
    ),
    metric: str = typer.Option("latency", "--metric", help="The metric."),
    out: Path | None = typer.Option(None, "--out", help="Draw it into this .png, .svg or .pdf.", show_default=False),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Show a case over commits and time, from stored runs and baselines: its steps, and between which commits."""
    import json
    import sys

    from harness.door.history import history
    from harness.store.table import write

    found = history(benchmark, source or [Path("results")], metric=metric)
    if out is not None:
        print(f"harness: drew {found.save(out)}", file=sys.stderr)
    write((json.dumps(found.as_json(), indent=2, allow_nan=False) if as_json else repr(found)) + "\n")

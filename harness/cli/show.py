"""harness show results/cpu --metric latency,peak_memory --phase forward"""

from pathlib import Path
from typing import Any

import typer

from harness.cli._given import named
from harness.cli._rows import with_rows

FORMATS = ("text", "markdown", "latex", "csv", "json")


@with_rows
def command(
    runs: list[Path],
    which: dict[str, Any],
    context: typer.Context,
    metric: list[str] = typer.Option(["latency"], "--metric", help="Metrics, comma-separated, a table each."),
    rows: list[str] = typer.Option(["attention"], "--rows", help="Axes down: attention (with its m), problem, heads …"),
    columns: str = typer.Option("n", "--columns", help="The axis across."),
    format: str = typer.Option(
        "text",
        "--format",
        metavar="FORMAT",
        help="text, or for a paper markdown, latex, csv, json: with intervals, and a caption of what measured it.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
    as_csv: bool = typer.Option(False, "--csv", help="Print the tables as one CSV, unrounded, without intervals."),
) -> None:
    """Pivot runs in the terminal: variants down, token counts across, medians with their intervals."""
    import json

    from harness.door.stored import read
    from harness.errors import UsageError, unknown
    from harness.store.table import write

    if as_json and as_csv:
        raise UsageError("--json and --csv cannot both be given")
    if format not in FORMATS:
        raise UsageError(unknown("format", format, FORMATS))
    if named(context, "format") and (as_json or as_csv):
        raise UsageError(f"--format {format} and --{'json' if as_json else 'csv'} cannot both be given")
    run = read(runs)
    tables = run.table(metric, rows=rows, columns=columns, **which)
    if as_json or format == "json":
        told = {"caption": run.caption.splitlines()} if format == "json" else {}
        write(json.dumps({"run": str(run.name), **told, "tables": tables.as_json()}, indent=2) + "\n")
    elif format in ("markdown", "latex"):
        write(tables.to_markdown(note=run.caption) if format == "markdown" else tables.to_latex(note=run.caption))
    elif as_csv or format == "csv":
        write(tables.to_csv(intervals=format == "csv"))
    else:
        write(f"{tables!r}\n")

"""harness show results/cpu --metric latency,peak_memory --phase forward"""

from pathlib import Path

import typer

from harness.cli._rows import with_rows


@with_rows
def command(
    runs: list[Path],
    which: dict[str, list[str]],
    metric: list[str] = typer.Option(["latency"], "--metric", help="Metrics, comma-separated, a table each."),
    rows: list[str] = typer.Option(["attention"], "--rows", help="Axes down: attention (with its m), phase, dtype …"),
    columns: str = typer.Option("n", "--columns", help="The axis across."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
    as_csv: bool = typer.Option(False, "--csv", help="Print the tables as one CSV, unrounded."),
) -> None:
    """Pivot runs in the terminal: variants down, token counts across, medians with their intervals."""
    import json

    from harness.door.stored import read
    from harness.errors import UsageError
    from harness.store.table import write

    if as_json and as_csv:
        raise UsageError("--json and --csv cannot both be given")
    run = read(runs)
    tables = run.table(metric, rows=rows, columns=columns, **which)
    if as_json:
        write(json.dumps({"run": str(run.name), "tables": tables.as_json()}, indent=2) + "\n")
    else:
        write(tables.to_csv() if as_csv else f"{tables!r}\n")

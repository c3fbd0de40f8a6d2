"""harness show results/cpu --metric latency,peak_memory --phase forward"""

from pathlib import Path
from typing import Any

import typer

from harness.cli._rows import with_rows


@with_rows
def command(
    which: dict[str, Any],
    run: Path | None = typer.Argument(None, help="A run's folder; the newest one under results/ by default."),
    metric: list[str] = typer.Option(["latency"], "--metric", help="Metrics, comma-separated, a table each."),
    rows: list[str] = typer.Option(["attention"], "--rows", help="Axes down: attention (with its m), problem, heads …"),
    columns: str = typer.Option("n", "--columns", help="The axis across."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
    as_csv: bool = typer.Option(False, "--csv", help="Print the tables as one CSV, unrounded."),
) -> None:
    """Pivot a run in the terminal: variants down, token counts across, medians with their intervals."""
    import json

    from harness.door.stored import Run
    from harness.errors import UsageError
    from harness.store import runs as store
    from harness.store.table import write

    if as_json and as_csv:
        raise UsageError("--json and --csv cannot both be given")
    folder = run if run is not None else store.newest_run(Path("results"))
    tables = Run((folder,)).table(metric, rows=rows, columns=columns, **which)
    if as_json:
        write(json.dumps({"run": str(folder), "tables": tables.as_json()}, indent=2) + "\n")
    else:
        write(tables.to_csv() if as_csv else f"{tables!r}\n")

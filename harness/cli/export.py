"""harness export results/cpu --to parquet: the rows of runs as one file for other tools."""

from pathlib import Path
from typing import Any

import typer

from harness.cli._rows import with_rows


@with_rows
def command(
    runs: list[Path],
    which: dict[str, Any],
    to: str = typer.Option("parquet", "--to", metavar="parquet|csv", help="Of what kind."),
    out: Path | None = typer.Option(None, "--out", help="The file. Default: the run's name, here.", show_default=False),
    samples: bool = typer.Option(False, "--samples", help="The raw samples in place of the rows."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document instead of the file's name."),
) -> None:
    """Write the rows of runs, or their raw samples, as one Parquet or CSV file."""
    import json

    from harness.door.stored import read
    from harness.store.table import write

    run = read(runs)
    target = run.export(out, to=to, samples=samples, **which)
    document = {"file": str(target), "bytes": target.stat().st_size, "runs": list(map(str, run.paths))}
    write(json.dumps(document, indent=2) + "\n" if as_json else f"{target}\n")

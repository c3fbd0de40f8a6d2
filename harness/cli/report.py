"""harness report RUN…: one HTML file with the answer, the charts and every row."""

from __future__ import annotations

from pathlib import Path

import typer


def command(
    runs: list[Path] = typer.Argument(
        None,
        metavar="[RUN]...",
        show_default=False,
        help="Runs, or folders that hold runs; the newest run under results/ by default.",
    ),
    out: Path | None = typer.Option(
        None, "--out", help="The file to write. Default: report.html in the run's folder.", show_default=False
    ),
    by: str = typer.Option(
        "latency", "--by", help="Whose time: latency (the device's), host, or eager (the longer). One on a CPU."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document instead of the file's name."),
) -> None:
    """Write one self-contained HTML file: the answer, interactive charts, every row, failures and the environment."""
    import json

    from harness.door.stored import read
    from harness.store import runs as store
    from harness.store.table import write

    run = read(list(dict.fromkeys(runs or [store.newest_run(Path("results"))])))
    target = run.report(out, by=by)
    if as_json:
        document = {"report": str(target), "bytes": target.stat().st_size, "runs": list(map(str, run.paths))}
        write(json.dumps(document, indent=2) + "\n")
    else:
        write(f"{target}\n")

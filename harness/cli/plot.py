"""harness plot results/cpu --figure latency,roofline"""

from pathlib import Path

import typer

from harness.cli._rows import with_rows


@with_rows
def command(
    runs: list[Path],
    which: dict[str, list[str]],
    figure: list[str] = typer.Option([], "--figure", help="Figures to draw, comma-separated; all by default."),
    out: Path | None = typer.Option(None, "--out", help="Where to write; the run's own figures/ by default."),
    format: list[str] = typer.Option(["png,svg"], "--format", help="png, svg or both."),
    by: str = typer.Option(
        "latency", "--by", help="Whose time: latency (the device's), host, or eager (the longer). One on a CPU."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document instead of the files' names."),
) -> None:
    """Draw a run's figures as PNG and SVG, and print the files written."""
    import json
    import sys

    from harness.door.stored import read
    from harness.errors import NothingToCompare

    run = read(runs)
    outcome = run.draw(figure, out=out, formats=format, by=by, **which)
    for name, reason in outcome.skipped.items():
        print(f"harness: skipped {name}: {reason}", file=sys.stderr)
    if not outcome.figures:
        raise NothingToCompare(f"{run.name} holds nothing that {', '.join(outcome.skipped)} could draw")
    if as_json:
        document = {
            "run": str(run.name),
            "figures": [{"name": name, "files": list(map(str, files))} for name, files in outcome.figures.items()],
            "skipped": [{"name": name, "reason": reason} for name, reason in outcome.skipped.items()],
        }
        print(json.dumps(document, indent=2))
        return
    for files in outcome.figures.values():
        for file in files:
            print(file)

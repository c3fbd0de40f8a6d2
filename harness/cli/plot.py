"""harness plot results/cpu --figure latency,roofline"""

from pathlib import Path
from typing import Any

import typer

from harness.cli._rows import with_rows


@with_rows
def command(
    runs: list[Path],
    which: dict[str, Any],
    figure: list[str] = typer.Option([], "--figure", help="Figures to draw, comma-separated; all by default."),
    out: Path | None = typer.Option(None, "--out", help="Where to write; the run's own figures/ by default."),
    format: list[str] = typer.Option(["png,svg"], "--format", help="png, svg, pdf, or several."),
    title: str = typer.Option("", "--title", help="A line above each figure.", show_default=False),
    size: str = typer.Option("", "--size", metavar="WxH", help="Inches: 5, or 5x3. Default: 8, as high as it needs."),
    scale: str = typer.Option("", "--scale", metavar="log|linear", help="Of values over n. Default: log."),
    style: str = typer.Option("", "--style", help="A style of matplotlib's, or a file of one.", show_default=False),
    x: str = typer.Option("", "--x", help="An axis (n, m, batch, heads, head_dim) or a metric.", show_default=False),
    y: str = typer.Option("", "--y", help="The metric to draw over --x. Default: latency.", show_default=False),
    by: str = typer.Option(
        "latency", "--by", help="Whose time: latency (the device's), host, or eager (the longer). One on a CPU."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document instead of the files' names."),
) -> None:
    """Draw figures of runs, and print the files written; with --x and --y any metric over any axis or metric."""
    import json
    import sys

    from harness.door.stored import read
    from harness.errors import NothingToCompare

    run = read(runs)
    outcome = run.draw(
        figure, out=out, formats=format, by=by, title=title, size=size, scale=scale, style=style, x=x, y=y, **which
    )  # fmt: skip
    if as_json and outcome.figures:
        document = {
            "run": str(run.name),
            "figures": [{"name": name, "files": list(map(str, files))} for name, files in outcome.figures.items()],
            "skipped": [{"name": name, "reason": reason} for name, reason in outcome.skipped.items()],
        }
        print(json.dumps(document, indent=2))
    elif outcome.figures:
        print("\n".join(str(file) for files in outcome.figures.values() for file in files))
    if outcome.skipped:
        sys.stdout.flush()  # what was drawn comes first, wherever the two streams go
        reasons = bool(figure) or not outcome.figures
        print(f"harness: nothing to draw for {_skipped(outcome.skipped, reasons=reasons)}", file=sys.stderr)
    if not outcome.figures:
        raise NothingToCompare(f"{run.name} holds nothing that {', '.join(outcome.skipped)} could draw")


def _skipped(skipped: dict[str, str], *, reasons: bool) -> str:
    """The names in one line, with their reasons where figures were asked for by name or there is none at all."""
    if reasons:
        return "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
    return f"{', '.join(skipped)} (--json has the reasons)"

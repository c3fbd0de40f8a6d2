"""harness plot results/cpu --figure latency,roofline"""

from pathlib import Path

import typer


def command(
    run: Path | None = typer.Argument(None, help="A run's folder; the newest one under results/ by default."),
    figure: list[str] = typer.Option([], "--figure", help="Figures to draw, comma-separated; all by default."),
    out: Path | None = typer.Option(None, "--out", help="Where to write; the run's own figures/ by default."),
    format: list[str] = typer.Option(["png,svg"], "--format", help="png, svg or both."),
    attention: list[str] = typer.Option([], "--attention", help="Only these: anchor, anchor:sdpa."),
    n: list[str] = typer.Option([], "--n", help="Only these token counts: 1024,4k."),
    m: list[str] = typer.Option([], "--m", help="Only these m, and the exact variants."),
    phase: list[str] = typer.Option([], "--phase", help="Only these phases."),
    dtype: list[str] = typer.Option([], "--dtype", help="Only these dtypes."),
    by: str = typer.Option(
        "latency", "--by", help="Whose time: latency (the device's), host, or eager (the longer). One on a CPU."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document instead of the files' names."),
) -> None:
    """Draw a run's figures as PNG and SVG, and print the files written."""
    import json
    import sys

    from harness.door.stored import Run
    from harness.errors import NothingToCompare
    from harness.store import runs as store

    folder = run if run is not None else store.newest_run(Path("results"))
    outcome = Run((folder,)).draw(
        figure, out=out, formats=format, attention=attention, n=n, m=m, phase=phase, dtype=dtype, by=by
    )  # fmt: skip
    if as_json and outcome.figures:
        document = {
            "run": str(folder),
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
        raise NothingToCompare(f"{folder} holds nothing that {', '.join(outcome.skipped)} could draw")


def _skipped(skipped: dict[str, str], *, reasons: bool) -> str:
    """The names in one line, with their reasons where figures were asked for by name or there is none at all."""
    if reasons:
        return "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
    return f"{', '.join(skipped)} (--json has the reasons)"

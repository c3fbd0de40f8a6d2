"""harness show results/cpu --metric latency,peak_memory --phase forward"""

from pathlib import Path

import typer


def command(
    run: Path | None = typer.Argument(None, help="A run's folder; the newest one under results/ by default."),
    metric: list[str] = typer.Option(["latency"], "--metric", help="Metrics, comma-separated, a table each."),
    rows: list[str] = typer.Option(["attention"], "--rows", help="Axes down: attention (with its m), phase, dtype …"),
    columns: str = typer.Option("n", "--columns", help="The axis across."),
    attention: list[str] = typer.Option([], "--attention", help="Only these: anchor, anchor:sdpa."),
    n: list[str] = typer.Option([], "--n", help="Only these token counts: 1024,4k."),
    m: list[str] = typer.Option([], "--m", help="Only these m, and the exact variants."),
    batch: list[str] = typer.Option([], "--batch", help="Only these batch sizes."),
    phase: list[str] = typer.Option([], "--phase", help="Only these phases."),
    dtype: list[str] = typer.Option([], "--dtype", help="Only these dtypes."),
    scope: list[str] = typer.Option([], "--scope", help="Only these scopes."),
    device: list[str] = typer.Option([], "--device", help="Only these devices."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
    as_csv: bool = typer.Option(False, "--csv", help="Print the tables as one CSV, unrounded."),
) -> None:
    """Pivot a run in the terminal: variants down, token counts across, medians with their intervals."""
    import json

    from harness.cases.filters import only, words
    from harness.errors import NothingToCompare, UsageError
    from harness.store import pivot
    from harness.store import runs as store
    from harness.store.selection import labelled
    from harness.store.table import render, write

    if as_json and as_csv:
        raise UsageError("--json and --csv cannot both be given")
    down = tuple(words(rows, what="axis", valid=pivot.AXES))
    across = words([columns], what="axis", valid=pivot.AXES)
    if len(across) != 1 or across[0] in down:
        raise UsageError(f"--columns takes one axis that --rows does not name, not {columns!r}")
    folder = run if run is not None else store.newest_run(Path("results"))
    frame = labelled(store.read(folder))
    if frame.empty:
        raise NothingToCompare(f"{folder} holds no rows yet")
    metrics = words(metric, what="metric in this run", valid=list(dict.fromkeys(frame["metric"])))
    frame = only(
        frame, attention=attention, n=n, m=m, batch=batch, phase=phase, dtype=dtype, scope=scope, device=device
    )  # fmt: skip
    tables = [t for name in metrics for t in pivot.pivot(frame, name, rows_by=down, columns_by=across[0])]
    if not tables:
        raise NothingToCompare(f"{folder} holds no case of all that was asked for at once")
    if as_json:
        write(json.dumps({"run": str(folder), "tables": list(map(pivot.as_json, tables))}, indent=2) + "\n")
    elif as_csv:
        write(pivot.as_csv(tables))
    else:
        write(render(tables))

"""harness run: sweep n and m, write tidy rows, show a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from harness.cli._axes import with_axes


@with_axes
def command(
    given: dict[str, Any],
    out: Path | None = typer.Option(None, "--out", help="Run folder. Default: results/<time>.", show_default=False),
    name: str | None = typer.Option(None, "--name", help="Run folder results/NAME.", show_default=False),
    resume: bool = typer.Option(False, "--resume", help="Finish what --out or --name, or the newest run, lacks."),
    as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout instead of the table."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress on stderr; warnings stay."),
    engine: str = typer.Option(
        "local", "--engine", metavar="local|ray", help="local, or ray: a cluster's nodes side by side."
    ),
    address: str | None = typer.Option(
        None, "--address", metavar="HOST:PORT", help="Of the Ray cluster. Default: this machine's.", show_default=False
    ),
    sequence_parallel: str | None = typer.Option(
        None,
        "--sequence-parallel",
        metavar="P",
        show_default=False,
        help="Share each case's tokens among P processes: of torchrun, or started here.",
    ),
    devices: str | None = typer.Option(
        None,
        "--devices",
        metavar="LIST",
        help="Several GPUs of this machine side by side: cuda:0,cuda:1.",
        show_default=False,
    ),
) -> int:
    """Measure attention variants over n and m; write rows, samples and the environment; compare them in a table."""
    import shlex

    from harness.cases.sharing import is_follower
    from harness.door.engine import Choice
    from harness.door.measure import fresh, measured, under_name
    from harness.door.progress import Progress
    from harness.errors import FAILURE, OK
    from harness.store import runs as store

    if sequence_parallel is not None:
        given["sequence_parallel"] = sequence_parallel
    if is_follower():  # another process of torchrun writes; this one is a rank
        from harness.engines.torchrun import serve

        return serve()
    choice = Choice.parse(engine, address=address, devices=devices, given=given)
    folder = under_name(name, out=out) or (store.newest_run if resume else fresh)(Path("results"))
    progress = Progress(quiet=quiet)
    try:
        result = measured(given, folder, choice=choice, listener=progress, resume=resume)
    except KeyboardInterrupt:
        if (folder / store.MEASUREMENTS).exists():
            raise KeyboardInterrupt(f"finish it with: harness run --resume --out {shlex.quote(str(folder))}") from None
        raise
    finally:
        progress.close()
    frame = store.read(folder)
    _report(folder, result, frame, as_json=as_json)
    return OK if frame.empty or "ok" in set(frame["status"]) else FAILURE


def _report(folder: Path, result: Any, frame: Any, *, as_json: bool) -> None:
    import json
    import math
    import sys

    from harness.door.recommending import closing
    from harness.store import table

    if as_json:
        rows = frame.astype(object).where(frame.notna(), None).to_dict(orient="records")
        for row in rows:
            row.update({name: None for name, value in row.items() if isinstance(value, float) and math.isinf(value)})
        cases = frame.groupby("case_id", sort=False)["status"].agg(lambda s: "ok" if (s == "ok").any() else s.iloc[0])
        document = {
            "run": str(folder), "statuses": {str(k): int(v) for k, v in cases.value_counts().items()},
            "wall_s": result.wall_s, "measuring_s": result.measuring_s, "rows": rows,
        }  # fmt: skip
        json.dump(document, sys.stdout, indent=2, allow_nan=False)
        print()
        return
    table.write(table.comparison(frame))
    sentence = closing(folder)
    if sentence:
        table.write(f"\n{table.folded(sentence, 2)}\n")
    table.write(f"\n{folder}/  figures: harness plot {folder}\n")

"""harness recommend --n 16384 --budget-ms 2 --max-error 0.1: which attention to take, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from harness.cli._axes import with_axes


@with_axes(
    hidden=("metrics",),
    told={
        "attention": "Only these variants, or variant:backend, by comma. Default: every one that has rows.",
        "n": "The number of tokens: 4096, 16k. Required. Scope model and --emit do without.",
        "m": "Only these m, of variants that have one. Default: any stored; 64 to measure.",
    },
)
def command(
    given: dict[str, Any],
    runs: list[Path] = typer.Argument(
        None, metavar="[RUN]...", help="Stored runs to choose from; all under results/ by default.", show_default=False
    ),
    budget_ms: float | None = typer.Option(
        None, "--budget-ms", help="Milliseconds that a call may take, its interval included.", show_default=False
    ),
    max_error: float | None = typer.Option(
        None, "--max-error", help="Largest approximation error; 0 asks for exact variants.", show_default=False
    ),
    max_memory: float | None = typer.Option(
        None, "--max-memory", help="Largest peak memory above the inputs, in MiB.", show_default=False
    ),
    task: str | None = typer.Option(
        None, "--task", metavar="TASK", show_default=False,
        help="What models must be known to do: recall, digits, darcy, poisson, legend-segmentation, legend-detection, "
        "or one of a RUN.",
    ),
    min_accuracy: float | None = typer.Option(
        None, "--min-accuracy", help="How well, in their worst seed: a share up to 1.", show_default=False
    ),
    max_task_error: float | None = typer.Option(
        None, "--max-task-error", show_default=False,
        help="The same of a task that is told by an error: of darcy and poisson the relative L2 error.",
    ),
    by: str = typer.Option(
        "latency", "--by", help="Whose time: latency (the device's), host, or eager (the longer). One on a CPU."
    ),
    measure: bool | None = typer.Option(
        None, "--measure/--no-measure", show_default=False,
        help="Measure on this machine what is missing. Default: only where no RUN is named and nothing stored answers.",
    ),
    out: Path | None = typer.Option(
        None, "--out", help="Folder of what is measured. Default: results/<time>.", show_default=False
    ),
    emit: Path | None = typer.Option(
        None, "--emit", metavar="FILE", show_default=False,
        help="Write what is fastest among equals at every stored size, as JSON for attentions.Policy.",
    ),
    as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress on stderr; warnings stay."),
) -> int:  # fmt: skip
    """Recommend an attention for n tokens within limits, from stored runs: the best exact one, the best other, why."""
    import json

    from harness.door.progress import Progress
    from harness.door.recommending import Limits, answered
    from harness.door.stored import Run
    from harness.errors import NOTHING, OK
    from harness.store.table import write

    limits = Limits(
        budget_ms=budget_ms, max_error=max_error, max_memory=max_memory, task=task, min_accuracy=min_accuracy,
        max_task_error=max_task_error, by=by,
    )  # fmt: skip
    progress = Progress(quiet=quiet)
    try:
        found = answered(
            given, [Run((run,)) for run in runs or []], limits, measure=measure, out=out, listener=progress, emit=emit
        )
    finally:
        progress.close()
    write((json.dumps(found.as_json(), indent=2, allow_nan=False) if as_json else repr(found)) + "\n")
    return OK if any(answer.choice for answer in found.answers) or not found.answers else NOTHING

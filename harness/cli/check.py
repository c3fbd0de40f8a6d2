"""harness check: the regression gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from harness.cli._axes import with_axes


@with_axes(
    hidden=("metrics", "budget", "patience", "model", "resolution", "compile", "amp"),
    told={
        "attention": "Variants, or variant:backend, by comma. Default: full, flash, linformer, anchor and nystrom, or "
        "those of --plugin, or with --baseline the file's cases.",
        "n": "Token counts: 4096, 16k, 1k..64k, lists. Default: 1024; 512 for full.",
        "scope": "core (q, k, v in) or layer (with its projections). Default: core.",
        "phase": "forward, backward, train. Default: forward; of some variants train too.",
        "seed": "Seed of inputs, parameters and the order in each process. Default: 0.",
        "timeout": "Seconds after which one check of a case is given up. Default: 120.",
    },
)
def command(
    given: dict[str, Any],
    context: typer.Context,
    against: str = typer.Option(
        "", "--against", metavar="REV", help="Compare with this git revision, timing both here."
    ),
    baseline: Path | None = typer.Option(None, "--baseline", help="Compare with this file.", show_default=False),
    update: Path | None = typer.Option(
        None, "--update", help="Write the baseline if nothing failed.", show_default=False
    ),
    thorough: bool = typer.Option(False, "--thorough", help="20 pairs of processes instead of 12."),
    pairs: int | None = typer.Option(
        None, "--pairs", help="Pairs of processes, an even number from 8.", show_default=False
    ),
    seconds: float = typer.Option(0.35, "--seconds", help="Seconds of samples a case in each process."),
    threads: int = typer.Option(1, "--threads", help="CPU threads of a timed process; a shared machine gates on one."),
    quick: bool = typer.Option(False, "--quick", help="Time nothing: what is deterministic only."),
    accept: list[str] = typer.Option([], "--accept", metavar="VARIANT", help="Report its changes, do not fail."),
    base_python: str = typer.Option("", "--base-python", metavar="PATH", help="The interpreter that runs base."),
    strict: bool = typer.Option(
        False, "--strict", help="Exit 3 when something stays open: inconclusive, void, changed."
    ),
    as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout instead of the table."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress on stderr; warnings stay."),
    comment: Path | None = typer.Option(
        None, "--comment", help="Write the table in Markdown, for a pull request.", show_default=False
    ),
    history: Path | None = typer.Option(
        None, "--history", help="Add what head measured to this CSV, for harness history.", show_default=False
    ),
    junit: Path | None = typer.Option(None, "--junit", help="Write JUnit XML.", show_default=False),
    self_test: Path | None = typer.Option(
        None, "--self-test", help="Measure the gate's own error rates into this folder.", show_default=False
    ),
    pool: int = typer.Option(240, "--pool", help="--self-test: processes to record; resumes."),
    trials: int = typer.Option(400, "--trials", help="--self-test: decisions for each rate."),
    busy: bool = typer.Option(False, "--busy", help="--self-test: with a process that burns one core beside it."),
) -> int:
    """Fail when variants became slower, larger or less right than at another revision or than a stored baseline."""
    import json
    import sys

    from harness.check import output
    from harness.check.gate import run
    from harness.check.verdict import exit_code
    from harness.cli._gate import Progress, options, publish, self_tests, timing
    from harness.store.table import terminal_width

    self_tests(context, asked=self_test is not None)
    if self_test is not None:
        from harness.check import selftest

        timing(seconds=seconds, threads=threads)

        progress = Progress(quiet=quiet)
        try:
            return selftest.run(
                self_test, progress=progress, processes=pool, seconds=seconds, threads=threads, trials=trials,
                busy=busy, device=given.get("device", "cpu"),
            )  # fmt: skip
        finally:
            progress.close()
    asked = options(
        given, against=against, baseline=baseline, update=update, junit=junit, comment=comment, history=history,
        thorough=thorough, pairs=pairs, seconds=seconds, threads=threads, quick=quick, accept=accept,
        base_python=base_python,
    )  # fmt: skip
    progress = Progress(quiet=quiet)
    try:
        report = run(asked, progress)
    finally:
        progress.close()
    code = exit_code(report.findings, strict=strict)
    if as_json:
        json.dump(output.as_json(report, code), sys.stdout, indent=2)
        print()
    else:
        print(output.table(report, code, width=terminal_width() if sys.stdout.isatty() else None))
    progress.github(report, code)
    if comment is not None:
        publish(comment, output.comment(report, code))
    if junit is not None:  # last: what cannot be written must not cost the verdict
        publish(junit, output.junit(report))
    return code

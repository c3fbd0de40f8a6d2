"""harness eval classification --checkpoint runs/a --checkpoint runs/b --out results/mine"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from harness.errors import UsageError


def command(
    task: str = typer.Argument("", help="The task, checked against the checkpoint's own.", show_default=False),
    checkpoint: list[Path] = typer.Option(
        [], "--checkpoint", help="A run folder of harness train, or a file; repeatable."
    ),
    data: Path | None = typer.Option(None, "--data", help="Default: what it was trained with.", show_default=False),
    best: bool = typer.Option(False, "--best", help="Of a folder, the best weights instead of the last."),
    batch: int = typer.Option(1, "--batch", help="Images of the call whose cost is measured."),
    budget: float = typer.Option(2.0, "--budget", help="Seconds of latency samples."),
    out: Path | None = typer.Option(None, "--out", help="Default: eval/ in the first run folder.", show_default=False),
    plugin: list[str] = typer.Option(
        [], "--plugin", help="A Python file that defines variants of your own; it is run."
    ),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:<index>."),
    resume: bool = typer.Option(False, "--resume", help="Add to --out what it lacks."),
    as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout instead of the table."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress on stderr."),
) -> None:
    """Judge trained models: accuracy, parameters, FLOPs, latency and peak memory of the same weights, side by side."""
    import json
    import os

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's library writes to stderr on every start otherwise
    from harness.cli import _vision
    from harness.store import runs as store

    if not checkpoint:
        raise UsageError("--checkpoint is missing: a run folder of harness train, or a .safetensors file")
    if not 1 <= batch <= 1 << 16 or not 0 < budget <= 3600:
        raise UsageError(
            f"--batch {batch} --budget {budget:g}: a batch from 1 to 65536 and more than 0 to 3600 seconds"
        )
    try:
        from harness.measuring import judge
    except ModuleNotFoundError as error:
        raise _vision.missing_extra(error) from None
    from harness.machine.environment import resolve_device
    from harness.vision.runfolder import RunFolder

    first = checkpoint[0]
    folder = out or (first if first.is_dir() else first.parent) / "eval"
    plugins = _vision.with_plugins(plugin, resumed=folder if resume else None)
    where = resolve_device(device)
    progress = _vision.Progress(quiet=quiet)
    trained = [judge.load(path, task=task, data=data, best=best) for path in checkpoint]
    if len({each.task.name for each in trained}) > 1:
        raise UsageError(f"one task at a time: {', '.join(sorted({each.task.name for each in trained}))}")
    with RunFolder.open(
        folder, metrics=judge.metrics_of(trained[0].task), resume=resume, write=True, curves=False
    ) as run:
        run.describe(where, {"checkpoints": [each.plan.document() for each in trained]}, plugins=plugins)
        judged: dict[str, Path] = {}
        for path, each in zip(checkpoint, trained, strict=True):
            exam = judge.prepare(each, device=where, batch=batch)
            if earlier := judged.get(exam.case.case_id):
                raise UsageError(f"--checkpoint {path} and {earlier} are one model: the same weights, step and data")
            judged[exam.case.case_id] = path
            if run.store is not None and exam.case.case_id in run.store.done:
                progress.say(f"already there: {exam.case}")
                continue
            progress.say(f"judging {exam.case}, {len(each.data)} images")
            found = judge.judge(exam, budget_s=budget)
            run.rows(found.case, found.readings, found.samples)
    frame = store.read(folder)
    if as_json:
        print(json.dumps({"run": str(folder), "rows": _vision.records(frame)}, indent=2, allow_nan=False))
        return
    from harness.store import table

    table.write(_table(frame) + f"\n{folder}/\n")


def _table(frame: Any) -> str:
    """A line a model: accuracy first, then cost."""
    import pandas as pd

    from harness.store.record import parse_options

    ok = frame[frame["status"] == "ok"]
    names = list(dict.fromkeys(ok["metric"]))
    scales = {"params": (1e6, "M params"), "flops": (2e9, "GMAC"), "latency": (1, "ms"), "peak_memory": (1, "MiB peak")}
    heads = ["attention", "m", "seed", "step", *(scales.get(name, (1, name))[1] for name in names)]
    lines = []
    for _, rows in ok.groupby("case_id", sort=False):
        one, values = rows.iloc[0], dict(zip(rows["metric"], rows["value"], strict=True))
        step = parse_options(one.options).get("trained.step", "")
        cells = [f"{one.attention}:{one.backend}", "" if pd.isna(one.m) else str(one.m), str(one.seed), step]
        lines.append(cells + [f"{values[n] / scales.get(n, (1, n))[0]:.4g}" if n in values else "" for n in names])
    rows = [heads, *lines]
    widths = [max(len(row[at]) for row in rows) for at in range(len(heads))]
    aligned = [
        [text.rjust(w) if at else text.ljust(w) for at, (text, w) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]
    return "".join("  ".join(cells).rstrip() + "\n" for cells in aligned)

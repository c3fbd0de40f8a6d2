"""harness show results/cpu --metric latency,peak_memory --phase forward"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer


def command(
    run: Path | None = typer.Argument(None, help="A run's folder; the newest one under results/ by default."),
    metric: list[str] = typer.Option(["latency"], "--metric", help="Metrics, comma-separated, a table each."),
    rows: list[str] = typer.Option(["attention"], "--rows", help="Axes down: attention (with its m), phase, dtype …"),
    columns: str = typer.Option("n", "--columns", help="The axis across."),
    attention: list[str] = typer.Option([], "--attention", help="Only these: anchor, anchor:sdpa."),
    n: list[str] = typer.Option([], "--n", help="Only these token counts: 1024,4k or 1k..16k."),
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

    from harness import pivot, store
    from harness.errors import NothingToCompare, UsageError
    from harness.selection import labelled
    from harness.table import render, write

    if as_json and as_csv:
        raise UsageError("--json and --csv cannot both be given")
    down = tuple(_words(rows, "axis", pivot.AXES))
    across = _words([columns], "axis", pivot.AXES)
    if len(across) != 1 or across[0] in down:
        raise UsageError(f"--columns takes one axis that --rows does not name, not {columns!r}")
    folder = run if run is not None else store.newest_run(Path("results"))
    frame = labelled(store.read(folder))
    if frame.empty:
        raise NothingToCompare(f"{folder} holds no rows yet")
    metrics = _words(metric, "metric", _held(frame["metric"]))
    texts = {"phase": phase, "dtype": dtype, "scope": scope, "device": device}
    for name, wanted in texts.items():
        frame = _among(frame, name, _words(wanted, name, _held(frame[name])))
    for name, option, wanted in (("n", "n", n), ("m", "m", m), ("b", "batch", batch)):
        frame = _among(frame, name, _sizes(wanted, option, frame[name]))
    frame = _attentions(frame, attention)
    tables = [t for name in metrics for t in pivot.pivot(frame, name, rows_by=down, columns_by=across[0])]
    if not tables:
        raise NothingToCompare(f"{folder} holds all of these, but no case with all of them at once")
    if as_json:
        write(json.dumps({"run": str(folder), "tables": list(map(pivot.as_json, tables))}, indent=2) + "\n")
    elif as_csv:
        write(pivot.as_csv(tables))
    else:
        write("\n".join(map(render, tables)))


def _words(texts: list[str], what: str, valid: Any) -> list[str]:
    """The comma-separated words, once each. Raises UsageError for one that is not valid."""
    from harness.errors import UsageError, unknown

    words = list(dict.fromkeys(word.strip() for text in texts for word in text.split(",")))
    for word in words:
        if word not in valid:
            raise UsageError(unknown(what, word, valid))
    return words


def _held(values: Any) -> list[str]:
    return list(dict.fromkeys(values))


def _among(frame: Any, name: str, wanted: list[Any]) -> Any:
    """The rows whose `name` is wanted (all for none wanted); exact variants stay, whatever m is."""
    if not wanted:
        return frame
    return frame[frame[name].isin(wanted) | frame[name].isna()]


def _sizes(texts: list[str], option: str, values: Any) -> list[int]:
    """The whole numbers asked for. Raises UsageError for one that the run does not hold."""
    from harness.errors import UsageError
    from harness.space import sizes

    wanted = [size for text in texts for size in sizes(text, axis="n")]
    held = sorted({int(value) for value in values.dropna()})
    for size in wanted:
        if size not in held:
            raise UsageError(f"--{option} {size} is not in this run; it holds: {', '.join(map(str, held)) or 'none'}")
    return wanted


def _attentions(frame: Any, texts: list[str]) -> Any:
    """The rows of these variants (anchor) or implementations (anchor:sdpa)."""
    if not texts:
        return frame
    full = frame["attention"] + ":" + frame["backend"]
    names = [*_held(frame["attention"]), *_held(full[frame["backend"] != ""]), *_held(frame["label"])]
    wanted = _words(texts, "attention", list(dict.fromkeys(names)))
    return frame[frame["attention"].isin(wanted) | full.isin(wanted) | frame["label"].isin(wanted)]

"""The runs that a command reads and the options that choose among their rows, in the words of a sweep.

    @with_rows
    def command(runs: list[Path], which: dict[str, Any], metric: list[str] = ...) -> None: ...

    @with_filters
    def command(which: dict[str, Any], a: Path = ..., b: list[Path] = ...) -> None: ...

`runs` are the paths named, or the newest run under results/; `which` receives the options that were given, and
harness.cases.filters says what they mean.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from harness.cli._given import given_first, given_of, parameter

ROWS: dict[str, tuple[Any, str]] = {
    "attention": (list[str], "Only these: anchor, anchor:sdpa."),
    "n": (list[str], "Only these token counts: 1024,4k."),
    "m": (list[str], "Only these m, and the exact variants."),
    "batch": (list[str], "Only these batch sizes."),
    "heads": (list[str], "Only these numbers of heads."),
    "head_dim": (list[str], "Only these head dimensions."),
    "causal": (bool, "Only causal attention."),
    "kv_heads": (list[str], "Only these numbers of heads of keys."),
    "kv_tokens": (list[str], "Only these numbers of keys."),
    "phase": (list[str], "Only these phases."),
    "dtype": (list[str], "Only these dtypes."),
    "scope": (list[str], "Only these scopes."),
    "device": (list[str], "Only these devices."),
    "machine": (list[str], "Only these machines."),
}
RUNS = "Runs, or folders that hold runs; the newest run under results/ by default."


def with_filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that choose rows; it receives those given as its first argument, `which`."""
    shared = [parameter(name, kind, text) for name, (kind, text) in ROWS.items()]
    return given_first(command, shared, given_of, last=True)


def with_rows(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the runs and the options that choose rows; it receives them as its first two arguments."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[2:]
    argument: Any = typer.Argument(None, help=RUNS, show_default=False)
    first = inspect.Parameter("run", inspect.Parameter.KEYWORD_ONLY, default=argument, annotation=list[Path])
    which = inspect.Parameter("which", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=dict[str, Any])

    @functools.wraps(command)
    def over_runs(which: dict[str, Any], *, run: list[Path], **values: Any) -> Any:
        from harness.store.runs import newest_run

        return command(run or [newest_run(Path("results"))], which, **values)

    parameters = [which, first, *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own)]
    over_runs.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return with_filters(over_runs)

"""The runs that a command reads and the options that choose among their rows, shared by show, plot and whoever else.

    @with_rows
    def command(runs: list[Path], which: dict[str, list[str]], metric: list[str] = ...) -> None: ...

`runs` are the paths named, or the newest run under results/; `which` goes to harness.door as it is.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from harness.cli._completion import completing

FILTERS = {
    "attention": "Only these: anchor, anchor:sdpa.",
    "n": "Only these token counts: 1024,4k.",
    "m": "Only these m, and the exact variants.",
    "batch": "Only these batch sizes.",
    "heads": "Only these numbers of heads.",
    "head_dim": "Only these head dimensions.",
    "phase": "Only these phases.",
    "dtype": "Only these dtypes.",
    "scope": "Only these scopes.",
    "device": "Only these devices.",
    "machine": "Only these machines.",
}
RUNS = "Runs, or folders that hold runs; the newest run under results/ by default."


def with_rows(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the runs and the filters; it receives them as its first two arguments."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[2:]

    @functools.wraps(command)
    def wrapped(run: list[Path], **values: Any) -> Any:
        from harness.store.runs import newest_run

        which = {name: values.pop(name) for name in FILTERS}
        return command(run or [newest_run(Path("results"))], which, **values)

    argument: Any = typer.Argument(None, help=RUNS, show_default=False)
    first = inspect.Parameter("run", inspect.Parameter.KEYWORD_ONLY, default=argument, annotation=list[Path])
    shared = [_filter(name, text) for name, text in FILTERS.items()]
    parameters = [first, *(one.replace(kind=one.KEYWORD_ONLY) for one in own), *shared]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {one.name: one.annotation for one in parameters}
    del wrapped.__wrapped__  # type: ignore[attr-defined]
    return wrapped


def _filter(name: str, text: str) -> inspect.Parameter:
    option: Any = typer.Option(
        [], f"--{name.replace('_', '-')}", help=text, metavar="LIST", show_default=False,
        autocompletion=completing(name),
    )  # fmt: skip
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=list[str])

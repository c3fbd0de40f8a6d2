"""Options that several commands share: they reach a command as one first argument, checked in one place. And which
options were given.

command = given_first(command, [parameter("n", list[str], "…"), …], gather)
command(gather({"n": [...], …}), …)          # what typer then calls
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import typer

from harness.cli._completion import completing


def parameter(name: str, kind: Any, text: str, *, metavar: str = "LIST", hidden: bool = False) -> inspect.Parameter:
    """An option `--some-name`, None where it is not given; a bool is a flag without its opposite."""
    option = typer.Option(
        None, f"--{name.replace('_', '-')}", help=text, show_default=False,
        metavar=None if kind is bool else metavar, autocompletion=completing(name), hidden=hidden,
    )  # fmt: skip
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind | None)


def given_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that were given: a flag that was not is False, or None."""
    return {name: value for name, value in values.items() if value is not None and value is not False and value != []}


def named(context: typer.Context, name: str) -> bool:
    """Whether the command line gives an option, its default included: by the parser's own account."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def given_first(
    command: Callable[..., Any], shared: Sequence[inspect.Parameter], gather: Callable[[dict[str, Any]], Any], *,
    last: bool = False,
) -> Callable[..., Any]:  # fmt: skip
    """The command with these options before its own, or after them; `gather` of their values is its first argument."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @functools.wraps(command)
    def wrapped(**values: Any) -> Any:
        return command(gather({one.name: values.pop(one.name) for one in shared}), **values)

    mine = [p.replace(kind=p.KEYWORD_ONLY) for p in own]
    wrapped.__signature__ = inspect.Signature([*mine, *shared] if last else [*shared, *mine])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in (*shared, *own)}
    del wrapped.__wrapped__  # type: ignore[attr-defined]
    return wrapped

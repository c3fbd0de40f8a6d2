"""The command line: one file a command, found by file name; each defines `command` and a one-line docstring for it.

A command returns nothing or an exit code. Errors that carry a `code` (harness.errors) print as one line on stderr.
Only the module of the command that was asked for is imported, and modules import what they need inside `command`.
May import every room; a command parses, calls what Python users call, and prints.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any

import typer
from typer.models import OptionInfo

from harness.cli._surroundings import OutputLost, mute, refused, say, signals, streams
from harness.errors import FAILURE, INTERRUPTED, OK, USAGE, UsageError, brief, unknown

SUMMARY = """Which attention, at which token count n and anchor number m, on this hardware, and at what cost.

Start with:  harness run --n 4096 --m 64      then:  harness plot
"""

WELCOME = """{title}

Start here
  harness run --n 4096 --m 64     measure every variant; two minutes at most
  harness show                    the newest run as a table; harness plot draws
  harness crossover anchor flash  from which n anchor beats flash here
  harness list                    variants, backends, and what is missing
  harness doctor                  is this machine fit to measure on?
{newest}
Commands: {commands}
Options of one: harness COMMAND --help
Completion in your shell: harness --install-completion"""
COMPLETING = "_HARNESS_COMPLETE"  # set by the shell when it asks what could follow
WORDS = {"list": "LIST", "Path": "PATH", "int": "WHOLE", "float": "NUMBER", "str": "WORD"}  # of a type, in help


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (sys.argv without the program's name by default). Returns the exit code; prints errors."""
    words = [*(sys.argv[1:] if arguments is None else arguments)]  # `list` is a command's module here
    if not words and COMPLETING in os.environ:
        words = ["--help"]
    with streams():
        try:
            code = _run(words)
            sys.stdout.flush()
            return code
        except (_Ended, KeyboardInterrupt, BrokenPipeError) as ended:
            cause = ended.__cause__ if isinstance(ended, _Ended) else ended
            if isinstance(cause, BrokenPipeError):
                mute(sys.stdout)
                return OK
            return _say("interrupted" + (f"; {cause}" if str(cause) else ""), INTERRUPTED)
        except SystemExit as ended:  # how typer ends where the reader of its help has left
            if not isinstance(ended.__context__, BrokenPipeError):
                raise
            mute(sys.stdout)
            return OK
        except Exception as error:
            if os.environ.get("HARNESS_DEBUG"):
                raise
            if isinstance(error, OutputLost):
                mute(sys.stdout)
            return _say(*_told(error))


def _run(words: list[str]) -> int:
    asked = words[0] if words and words[0] in commands() else None
    if not words:
        print(_welcome(), flush=True)
        return OK
    if asked is None and not words[0].startswith("-"):
        raise UsageError(unknown("command", words[0], commands()))
    with signals():
        result = _app(asked)(words, prog_name="harness", standalone_mode=False)
    return result if isinstance(result, int) else OK


def _told(error: Exception) -> tuple[str, int]:
    """What is said of an error, and the exit code."""
    code = getattr(error, "code", None) or getattr(error, "exit_code", None)
    if isinstance(code, int):
        format_message = getattr(error, "format_message", error.__str__)  # typer's own errors have one
        return format_message() + _got(error), code
    if type(error).__name__ == "AttentionError":  # attentions is not imported here: that would cost seconds
        return str(error), USAGE
    hint = "this is a fault of harness; HARNESS_DEBUG=1 shows where"
    return refused(error) or (f"{type(error).__name__}: {error} ({hint})", FAILURE)


def commands() -> list[str]:
    """The names of the commands, in alphabetical order."""
    files = [name for folder in __path__ for name in os.listdir(folder)]  # pkgutil says nothing where it cannot look
    return sorted(name.removesuffix(".py") for name in files if name.endswith(".py") and not name.startswith("_"))


def _welcome() -> str:
    """Where to start, on 80 columns; and the newest run's folder where there is one."""
    import textwrap
    from pathlib import Path

    from harness.store import runs as store

    newest = ""
    with suppress(store.StoreError, OSError):
        newest = f"\nYour newest run is {store.newest_run(Path('results'))}/\n"
    names = textwrap.fill(", ".join(commands()), 79, initial_indent=" " * 10, subsequent_indent=" " * 10).lstrip()
    title = textwrap.fill(SUMMARY.splitlines()[0], 79)
    return WELCOME.format(title=title, newest=newest, commands=names)


def _app(asked: str | None) -> typer.Typer:
    app = typer.Typer(
        help=SUMMARY, rich_markup_mode=None, pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )  # fmt: skip
    app.callback(invoke_without_command=asked is None)(_carried(_start))
    for name in [asked] if asked else commands():
        app.command(name)(_carried(_worded(_module(name).command)))
    return app


def _worded(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command whose help names the values of its options in words."""
    for parameter in inspect.signature(command).parameters.values():
        option, kind = parameter.default, str(parameter.annotation)
        if isinstance(option, OptionInfo) and option.metavar is None and "bool" not in kind:
            option.metavar = next((word for name, word in WORDS.items() if name in kind), None)
    return command


class _Ended(Exception):
    """A command ended by a signal or a closed pipe, which is the cause; typer would exit on either by its own rules."""


def _carried(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def carried(*values: Any, **named: Any) -> Any:
        try:
            return command(*values, **named)
        except (KeyboardInterrupt, BrokenPipeError) as error:
            raise _Ended from error

    return carried


def _start(version: bool = typer.Option(False, "--version", help="Print the version and stop.", is_eager=True)) -> None:
    if version:
        from harness import __version__
        from harness.machine.environment import commit

        revision = commit()
        print(f"attention-harness {__version__}" + (f", commit {revision}" if revision else ""))
        raise typer.Exit


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


def _got(error: Exception) -> str:
    """`, not 'x'` where typer refused a value, which its message leaves out."""
    found = getattr(error.__cause__, "errors", None)
    return f", not {brief(repr(found()[0]['input']))}" if type(error).__name__ == "BadParameter" and found else ""


def _say(message: str, code: int) -> int:
    say(message)
    return code

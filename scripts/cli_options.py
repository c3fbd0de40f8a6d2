"""Every command with its options and arguments, one a line: the command line that scripts depend on.

    python scripts/cli_options.py                     # prints it
    python scripts/cli_options.py --write             # after a change that is meant: freezes it for the test

tests/harness/cli/test_cli_options.py compares the command line with the frozen list, tests/harness/cli/cli_options.txt.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from harness import cli

FROZEN = Path(__file__).resolve().parents[1] / "tests" / "harness" / "cli" / "cli_options.txt"


def lines() -> list[str]:
    """`run --n`, `run -q --quiet`, `compare A`: sorted by command, options before arguments."""
    root: Any = typer.main.get_command(cli._app(None))
    found = [f"harness {_text(parameter)}" for parameter in root.params]
    for name, command in sorted(root.commands.items()):
        texts = sorted((p.param_type_name != "option", _text(p)) for p in command.params)
        found += [f"{name} {text}" for _, text in texts]
    return found


def _text(parameter: Any) -> str:
    if parameter.param_type_name == "option":
        return " ".join(sorted([*parameter.opts, *parameter.secondary_opts], key=lambda name: (len(name), name)))
    return f"{(parameter.metavar or parameter.name).upper()}{'' if parameter.required else ' (optional)'}"


if __name__ == "__main__":
    text = "".join(f"{line}\n" for line in lines())
    if sys.argv[1:] == ["--write"]:
        FROZEN.write_text(text, encoding="utf-8")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        print(text, end="")

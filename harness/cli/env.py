"""harness env [--device auto|cpu|cuda[:i]] [--json]"""

from __future__ import annotations

from typing import Any

import typer


def command(
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:<i>."),
    as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout."),
) -> None:
    """Show the machine, versions and commit as recorded beside every measurement."""
    import json

    from harness.machine import environment

    document = environment.collect(environment.resolve_device(device))
    top: dict[str, Any] = {"machine": environment.machine(document), "commit": environment.commit()}
    if as_json:
        print(json.dumps(top | document, indent=2, allow_nan=False))
        return
    _section("", top | {"device": document["device"]})
    for title, values in document.items():
        if isinstance(values, dict):
            known = {name: value for name, value in values.items() if value is not None}
            _section(title if title != "missing" else "not known", known)


def _section(title: str, values: dict[str, Any]) -> None:
    """A title and `name  value` lines; long values go on below themselves, for narrow terminals."""
    import shutil
    import sys
    import textwrap

    if not values:
        return
    width = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 10_000
    column = max(map(len, values)) + 4
    if title:
        print(f"\n{title}")
    for name, value in values.items():
        lines = textwrap.wrap(_text(name, value), max(20, width - column - 1)) or ["(none)"]
        print(f"  {name:<{column - 2}}{lines[0]}")
        for line in lines[1:]:
            print(" " * column + line)


def _text(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(name, part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_bytes") and isinstance(value, int):
        size, unit = (value / (1 << 30), "GiB") if value >= 1 << 30 else (value / (1 << 10), "KiB")
        return f"{size:.1f} {unit}" if unit == "GiB" else f"{size:.0f} {unit}"
    return str(value)

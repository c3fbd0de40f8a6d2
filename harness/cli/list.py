"""harness list: the variants, their backends, and why one cannot run here."""

from __future__ import annotations

from typing import Any

import typer


def command(
    plugin: list[str] | None = typer.Option(None, "--plugin", help="A Python file or package of your own; it is run."),
    as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout."),
) -> None:
    """List the attention variants: paper, options, backends, and what is missing where one cannot run here."""
    import json
    import sys

    from harness.cases.catalogue import cached

    found = cached(plugin or []) or {}
    if as_json:
        json.dump(found, sys.stdout, indent=2, allow_nan=False)
        print()
        return
    print("\n\n".join(_text(name, entry) for name, entry in found["attentions"].items()))


def _text(name: str, entry: dict[str, Any]) -> str:
    import shutil
    import textwrap

    width = min(shutil.get_terminal_size().columns, 110)
    bottleneck = f"; m: {entry['bottleneck']}" if entry["bottleneck"] else ", without m"
    kind = "exact" if entry["exact"] else f"approximate{bottleneck}"
    if entry["floor"]:
        kind = "the floor; left out of a sweep that does not name it"
    if all(facts["layer"] is not None for facts in entry["backends"].values()):
        kind = f"whole layers, for scope layer{bottleneck}"
    lines = [f"{name}: {entry['title']} ({kind})", f"  {entry['paper']}"]
    if entry["problems"]:
        lines.append("  takes " + ", ".join(f"--{key.replace('_', '-')}" for key in entry["problems"]))
    for option, facts in entry["options"].items():
        choices = f" ({', '.join(map(str, facts['choices']))})" if facts["choices"] else ""
        lines.append(f"  --set {name}.{option}={facts['default']}{choices}: {facts['help']}")
    for backend, facts in entry["backends"].items():
        reasons = facts["unavailable"]
        runs = [device for device, reason in reasons.items() if reason is None]
        if runs:
            taken = ", ".join(d for d in runs if entry["best"].get(d) == backend)
            lines.append(f"  {name}:{backend}  on {', '.join(runs)}" + (f"; the default on {taken}" if taken else ""))
        else:
            lines.append(f"  {name}:{backend}  unavailable: {next(iter(reasons.values()))}")
    wrapped = [
        textwrap.fill(line, width, subsequent_indent="      ", break_long_words=False, break_on_hyphens=False)
        for line in lines
    ]
    return "\n".join(wrapped)

"""harness doctor [--device auto|cpu|cuda[:i]] [--seconds 2] [--json] [--quiet]"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from harness.machine.doctor import Diagnosis

COLOURS = {"ok": "green", "warn": "yellow", "problem": "bold red", "unknown": "dim"}


def command(
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:<i>."),
    seconds: float = typer.Option(2.0, "--seconds", help="How long the stability probe takes, 0.1 to 600."),
    as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress on stderr."),
) -> None:
    """Check whether this machine is fit to measure on, and what to do about what is not."""
    import json
    import sys

    from harness.errors import UsageError

    if not 0.1 <= seconds <= 600:
        raise UsageError(f"--seconds {seconds:g} is out of range; valid: 0.1 to 600")

    from harness.machine.doctor import examine
    from harness.machine.environment import resolve_device

    def say(text: str) -> None:
        if not quiet:
            print(f"harness: {text}", file=sys.stderr)

    found = examine(resolve_device(device), seconds=seconds, say=say)
    if as_json:
        print(json.dumps(_document(found, seconds), indent=2, allow_nan=False))
    else:
        _page(found)


def _document(found: Diagnosis, seconds: float) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "device": found.device,
        "seconds": seconds,
        "counts": found.counts(),
        "findings": [asdict(finding) for finding in found.findings],
        "trial": asdict(found.trial) if found.trial else None,
        "smallest_effect": found.trial.effect if found.trial else None,
        "verdict": found.verdict,
    }


def _page(found: Diagnosis) -> None:
    """One line a finding; under those that are not ok, why it matters and what to do; the verdict last."""
    import shutil
    import textwrap

    from rich.console import Console
    from rich.text import Text

    from harness.store.table import terminal_colour

    width = shutil.get_terminal_size((100, 24)).columns
    colour = terminal_colour()
    console = Console(
        highlight=False, soft_wrap=True, force_terminal=colour, no_color=not colour,
        color_system="standard" if colour else None,
    )  # fmt: skip
    column = max(len(finding.check) for finding in found.findings) + 2

    def fold(text: str, indent: int) -> str:
        return ("\n" + " " * indent).join(textwrap.wrap(text, max(24, width - indent - 1), break_on_hyphens=False))

    lines: list[Text] = []
    for finding in found.findings:
        line = Text.assemble((f"{finding.level:<9}", COLOURS[finding.level]), finding.check)
        beside = width - column - 9 > 24  # else below
        line.append(" " * (column - len(finding.check)) if beside else "\n" + " " * 9)
        line.append(fold(finding.seen, column + 9 if beside else 9))
        if finding.level != "ok":
            for text in (finding.why, f"do: {finding.do}"):
                line.append("\n" + " " * 9 + fold(text, 9))
        lines.append(line)
    counts = ", ".join(f"{count} {level}" for level, count in found.counts().items() if count)
    lines.append(Text("\n" + fold(f"{counts}. {found.verdict}", 0)))
    with console.capture() as page:  # printed by print: rich would end the program with 1 at a closed pipe
        console.print(*lines, sep="\n")
    print(page.get(), end="")

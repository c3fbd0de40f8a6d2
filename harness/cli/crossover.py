"""harness crossover A B: the n from which A beats B on this machine."""

from __future__ import annotations

from typing import Any

import typer

from harness.cli._axes import with_axes


@with_axes(
    hidden=("attention", "n", "metrics", "model", "resolution", "compile", "amp"),
    told={
        "scope": "core (q, k, v in) or layer (with its projections). Default: core.",
        "seed": "Seed of inputs and parameters. Default: 0.",
        "budget": "Seconds of samples of each of A and B, an n. Default: 2.",
        "timeout": "Seconds after which an n is given up. Default: 120.",
    },
)
def command(
    given: dict[str, Any],
    a: str = typer.Argument(help="The variant (or variant:backend) that should win at large n."),
    b: str = typer.Argument(help="The one it is compared with."),
    low: str = typer.Option("128", "--low", help="Smallest n tried."),
    high: str = typer.Option("64k", "--high", help="Largest n tried."),
    as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress on stderr."),
) -> int:
    """Find the n from which A beats B here: doubling, then bisection, A and B measured in turns."""
    import json

    from harness.door.answers import crossover
    from harness.errors import INCONCLUSIVE, OK
    from harness.store.table import write

    found = crossover(a, b, low=low, high=high, progress=not quiet, **given)
    write((json.dumps(found.as_json(), indent=2, allow_nan=False) if as_json else repr(found)) + "\n")
    return INCONCLUSIVE if found.answer.kind == "refused" else OK

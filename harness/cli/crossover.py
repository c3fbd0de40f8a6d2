"""harness crossover A B: the n from which A beats B on this machine."""

from __future__ import annotations

from typing import Any

import typer

from harness.cli._axes import with_axes


@with_axes(
    hidden=("attention", "n", "metrics", "model", "resolution"),
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
    import sys
    from dataclasses import asdict

    from harness.answers import measure_crossover as crossing
    from harness.errors import INCONCLUSIVE, OK

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr)

    answer, device = crossing.measure(given, a, b, low=low, high=high, say=say)
    if as_json:
        document = {"a": a, "b": b, "device": device, "answer": answer.sentence(a, b), **asdict(answer)}
        for probe in document["probes"]:
            probe.update({k: None for k in ("ratio", "low", "high") if probe[k] in (0.0, float("inf"))})
        json.dump(document, sys.stdout, indent=2, allow_nan=False)
        print()
        return INCONCLUSIVE if answer.kind == "refused" else OK
    sentence = answer.sentence(a, b)
    if answer.contended or answer.kind == "refused":  # before all else, since it says how far the rest can be trusted
        print(f"{sentence}\n")
    for probe in answer.probes:
        figures = f"{probe.a_ms:10.4g} ms {probe.b_ms:10.4g} ms" if probe.a_ms and probe.b_ms else f"  {probe.note}"
        interval = f"{probe.ratio:8.3f} ({probe.low:.3f} to {probe.high:.3f})" if probe.a_ms else ""
        print(f"n={probe.n:<8} {figures} {interval}  {probe.winner}{' contended' if probe.contended else ''}")
    print(f"\n{sentence} on {device}; times of {a} and {b}, their ratio and who wins above")
    return INCONCLUSIVE if answer.kind == "refused" else OK

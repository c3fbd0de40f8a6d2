"""harness compare A B: two stored runs side by side."""

from __future__ import annotations

from pathlib import Path

import typer


def command(
    a: Path = typer.Argument(help="The run folder that figures are compared against."),
    b: Path = typer.Argument(help="The other run folder; ratios are B over A."),
    metrics: str = typer.Option("latency", "--metrics", help="Metrics by comma."),
    as_json: bool = typer.Option(False, "--json", help="One JSON document on stdout."),
) -> int:
    """Compare two stored runs case by case: the ratio B/A with its interval, and what it does not show."""
    import json
    import sys
    from collections import Counter
    from dataclasses import asdict

    from harness.answers.compare import compare
    from harness.errors import NOTHING, OK
    from harness.store.contention import banner
    from harness.store.table import folded, write

    lines = compare(a, b, metrics=tuple(name.strip() for name in metrics.split(",") if name.strip()))
    code = NOTHING if all(line.verdict in ("missing", "not comparable") for line in lines) else OK
    if as_json:
        document = {"a": str(a), "b": str(b), "lines": [asdict(line) for line in lines]}
        json.dump(document, sys.stdout, indent=2, allow_nan=False)
        print()
        return code
    doubted = sum(bool(line.contended) for line in lines)
    if doubted:
        write(folded(banner(doubted, len(lines), "comparison"), 2) + "\n")
    for line in lines:
        figures = " → ".join("-" if value is None else f"{value:.4g}" for value in (line.a, line.b))
        ratio = "" if line.ratio is None else f"  ×{line.ratio:.3f}"
        interval = "" if line.low is None else f" ({line.low:.3f} to {line.high:.3f})"
        reason = f"  [{line.reason}]" if line.verdict in ("missing", "not comparable") else ""
        reason += "  contended" if line.contended else ""
        text = f"{line.verdict:<14} {line.case}  {line.metric} {figures} {line.unit}{ratio}{interval}{reason}"
        write(folded(text, 15) + "\n")
    counted = Counter(line.verdict for line in lines)
    write("\n" + ", ".join(f"{count} {verdict}" for verdict, count in counted.most_common()) + "\n")
    told = [line for line in lines if line.verdict not in ("missing", "not comparable")]
    for reason in dict.fromkeys(line.reason for line in sorted(told, key=lambda line: line.verdict == "inconclusive")):
        wide = {line.verdict for line in told if line.reason == reason} == {"inconclusive"}
        write(folded(f"inconclusive: {reason}" if wide else reason, 2) + "\n")
    return code

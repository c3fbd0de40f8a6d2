"""How far runs of one and the same case lie apart: with freed memory kept, as `harness run` does, and by glibc's rule.

    python scripts/allocator_spread.py --out results/cpu/allocator_spread.csv     # 5 minutes on a quiet machine

Each run is a process of its own and measures the cases in an order of its own; the two ways take turns.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from beside_loops import measured

CASES = ["--attention", "full,flash,nystrom,anchor", "--n", "1024,4096", "--m", "64", "--phase", "forward,train",
         "--budget", "0.3"]  # fmt: skip
WAYS: Mapping[str, Mapping[str, str]] = {"kept": {}, "glibc's rule": {"MALLOC_PERTURB_": "0"}}  # 0 is the default
COLUMNS = ("way", "run", "case", "ms")


def spread(runs: int) -> Iterator[dict[str, Any]]:
    """A line for each latency of each run."""
    for run in range(runs):
        for way, environ in WAYS.items():
            for case, ms, _ in measured([*CASES, "--seed", str(run)], environ=environ):
                yield {"way": way, "run": run, "case": case, "ms": ms}
        print(f"run {run + 1} of {runs}", file=sys.stderr)


def table(lines: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Median and highest over lowest of each case, by each way."""
    found: dict[str, dict[str, list[float]]] = {}
    for line in lines:
        found.setdefault(line["case"], {}).setdefault(line["way"], []).append(float(line["ms"]))
    yield "| case | kept: median, ms | highest/lowest | glibc's rule: median, ms | highest/lowest |"
    yield "|---|---|---|---|---|"
    for case in sorted(found):
        told = [
            f"{statistics.median(times):.3g} | ×{max(times) / min(times):.2f}"
            for times in (found[case][way] for way in WAYS)
        ]
        yield f"| {case} | {' | '.join(told)} |"


def main() -> None:
    """Measure, write the CSV and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=6)
    given = parser.parse_args()
    lines = list(spread(given.runs))
    with given.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    print("\n".join(table(lines)))


if __name__ == "__main__":
    main()

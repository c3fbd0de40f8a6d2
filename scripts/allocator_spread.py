"""How processes of the same code differ by what the CPU's allocator does with freed memory: kept, and by glibc's rule.

    python scripts/allocator_spread.py --out results/cpu/allocator_spread.csv     # 4 minutes

Every process calls the same cases in an order of its own; the two ways take turns. Page faults of a call are exact on a
busy machine, too: each fetches 4 KiB from the system. Milliseconds are medians, and want a quiet one.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

CASES = [
    (name, n, phase)
    for name, sizes in {
        "full": (1024, 4096),
        "flash": (4096,),
        "nystrom": (4096, 16384),
        "anchor": (4096, 16384),
    }.items()
    for n in sizes
    for phase in ("forward", "train")
]
WAYS = ("kept", "glibc's rule")
COLUMNS = ("way", "process", "case", "faults", "ms")
HEADS, HEAD_DIM, ANCHORS, SECONDS, FEWEST = 6, 64, 64, 0.4, 5


def process(way: str, seed: int) -> Iterator[dict[str, Any]]:
    """What this process sees of each case: the median of its calls."""
    from harness.machine import allocator

    if way == "kept":
        allocator.keep()
    order = list(CASES)
    random.Random(seed).shuffle(order)
    for name, n, phase in order:
        call, faults, times = _call(name, n, phase), [], []
        call()
        until = time.perf_counter() + SECONDS
        while len(times) < FEWEST or time.perf_counter() < until:
            before, started = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - started))
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        del call
        yield {
            "way": way, "process": seed, "case": f"{name} n={n} {phase}",
            "faults": statistics.median(faults), "ms": round(statistics.median(times), 4),
        }  # fmt: skip
        if way == "kept":
            allocator.give_back()  # as a worker does between cases


def _call(name: str, n: int, phase: str) -> Callable[[], None]:
    import torch

    import attentions

    core = attentions.build(name, heads=HEADS, head_dim=HEAD_DIM, tokens=n, anchors=ANCHORS)
    q, k, v = (torch.randn(1, HEADS, n, HEAD_DIM, requires_grad=phase == "train") for _ in range(3))
    upstream = torch.ones(1, HEADS, n, HEAD_DIM)

    def forward() -> None:
        with torch.no_grad():
            core(q, k, v)

    def train() -> None:
        core(q, k, v).backward(upstream)
        for tensor in (q, k, v, *core.parameters()):
            tensor.grad = None

    return forward if phase == "forward" else train


def table(lines: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Lowest and highest of the processes, of each case and way."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in lines:
        pair = float(line["faults"]), float(line["ms"])
        found.setdefault(line["case"], {}).setdefault(line["way"], []).append(pair)
    yield "| case | kept: page faults a call | ms | glibc's rule: page faults a call | ms |"
    yield "|---|---|---|---|---|"
    for case in (f"{name} n={n} {phase}" for name, n, phase in CASES):
        told = []
        for way in WAYS:
            faults, times = zip(*found[case][way], strict=True)
            told += [f"{min(faults):,.0f} to {max(faults):,.0f}", f"{min(times):.3g} to {max(times):.3g}"]
        yield f"| {case} | {' | '.join(told)} |"


def main() -> None:
    """Start the processes, write the CSV and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=6, help="of each way")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "SEED"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(list(process(given.one[0], int(given.one[1])))))
        return
    lines: list[dict[str, Any]] = []
    for seed in range(given.processes):
        for way in WAYS:
            command = [sys.executable, __file__, "--out", str(given.out), "--one", way, str(seed)]
            lines += json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        print(f"process {seed + 1} of {given.processes}", file=sys.stderr)
    with given.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    print("\n".join(table(lines)))


if __name__ == "__main__":
    main()

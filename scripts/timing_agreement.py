"""Does our median agree with torch.utils.benchmark on the same case in the same process?

    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 OMP_NUM_THREADS=1 \\
        python scripts/timing_agreement.py --out results/cpu/timing_agreement.csv

Harness sampling and `Timer.blocked_autorange` take short turns in alternating order, so that drift of the machine falls
on both alike. The table gives the median over the rounds of harness/Timer − 1 with its 95 % interval; a case ends when
that is narrow enough. The variables keep freed memory in the process: to fetch it anew at every call is the larger and
noisier half of exact attention at n = 4096.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import time
from pathlib import Path

import torch
from torch.utils.benchmark import Timer

from harness import stats
from harness.measuring.metrics import Settings, latency
from harness.measuring.subject import Subject
from harness.store.record import Case

CASES = [("full", "reference", None), ("flash", "torch", None), ("anchor", None, 64)]
TOKENS = (1024, 4096)
FEWEST_ROUNDS = 24
COLUMNS = ("attention", "backend", "n", "m", "rounds", "harness_ms", "timer_ms", "difference", "low", "high")


def main() -> None:
    """Measure every case and write one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=240.0, help="a case, at most")
    parser.add_argument("--precision", type=float, default=0.01, help="half the interval at which a case ends")
    parser.add_argument("--turn", type=float, default=0.1, help="seconds of samples, a side and round, at least")
    given = parser.parse_args()
    rows = [
        _row(name, backend, n, m, given.seconds, given.precision, given.turn)
        for name, backend, m in CASES
        for n in TOKENS
    ]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(
            f"{row['attention']:>6}:{row['backend']:<9} n={row['n']:<5} harness {row['harness_ms']:8.3f} ms  "
            f"Timer {row['timer_ms']:8.3f} ms  {100 * row['difference']:+.2f} % "
            f"({100 * row['low']:+.2f} to {100 * row['high']:+.2f}), {row['rounds']} rounds"
        )


def _row(
    name: str, backend: str | None, n: int, m: int | None, seconds: float, precision: float, turn: float
) -> dict[str, object]:
    import attentions

    if backend is None:
        work = attentions.Work(b=1, h=6, n=n, d=64, m=m, options=attentions.spec(name).defaults)
        backend = attentions.resolve(name, device="cpu", dtype=torch.float32, work=work).name
    case = Case(
        attention=name, backend=backend, scope="core", phase="forward", b=1, h=6, n=n, d=64, m=m, dtype="float32",
        device="cpu",
    )  # fmt: skip
    subject = Subject(case)
    settings = Settings(budget_s=turn, precision=0.0, min_samples=3)
    timer = Timer("subject.call()", globals={"subject": subject}, num_threads=torch.get_num_threads())
    ours: list[float] = []
    theirs: list[float] = []
    begun = time.monotonic()
    differences: list[float] = []
    low, high = -math.inf, math.inf
    while len(differences) < FEWEST_ROUNDS or (high - low > 2 * precision and time.monotonic() - begun < seconds):
        for harness_turn in (len(ours) % 2 == 0, len(ours) % 2 == 1):
            if harness_turn:
                first = next(latency.measure(subject, {}, settings))
                assert first.value is not None
                ours.append(first.value)
            else:
                theirs.append(1e3 * timer.blocked_autorange(min_run_time=turn).median)
        differences.append(ours[-1] / theirs[-1] - 1)
        low, high = stats.median_interval(differences)
    return {
        "attention": name, "backend": backend, "n": n, "m": m, "rounds": len(differences),
        "harness_ms": statistics.median(ours), "timer_ms": statistics.median(theirs),
        "difference": statistics.median(differences), "low": low, "high": high,
    }  # fmt: skip


if __name__ == "__main__":
    main()

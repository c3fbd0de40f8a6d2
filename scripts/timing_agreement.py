"""Does our median agree with other clocks on the same case in the same process?

    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 OMP_NUM_THREADS=1 \\
        python scripts/timing_agreement.py --out results/cpu/timing_agreement.csv
    python scripts/timing_agreement.py --device cuda --out results/h100/timing_agreement.csv     # under 90 s

On a CPU harness sampling and `Timer.blocked_autorange` of torch.utils.benchmark take short turns in alternating order,
so that drift of the machine falls on both alike. The table gives the median over the rounds of harness/Timer − 1 with
its 95 % interval; a case ends when that is narrow enough. The variables keep freed memory in the process: to fetch it
anew at every call is the larger and noisier half of exact attention at n = 4096.

On CUDA the clocks are those of scripts/timing_on_cuda.py, a line a case; `note` says which of them failed and why. A
case that the seconds no longer reach has a line as well.
"""

from __future__ import annotations

import argparse
import csv
import gc
import math
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.utils.benchmark import Timer

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from timing_on_cuda import Compared, compare  # noqa: E402

from harness import stats  # noqa: E402
from harness.measuring.metrics import Settings, latency  # noqa: E402
from harness.measuring.subject import Subject  # noqa: E402
from harness.store.record import Case  # noqa: E402

CASES = [("full", "reference", None), ("flash", "torch", None), ("anchor", None, 64)]
TOKENS = (1024, 4096)
FEWEST_ROUNDS = 24
COLUMNS = ("attention", "backend", "n", "m", "rounds", "harness_ms", "timer_ms", "difference", "low", "high")
# On CUDA at b 1, h 12, d 64, bf16: from 10 us to 100 ms, and calls that the host takes longer for than the device.
CUDA_CASES = [
    (attention, backend, n, m, phase)
    for n in (4096, 65536, 1024, 16384)
    for attention, backend, m in (
        ("flash", "torch", None), ("anchor", "split", 64), ("anchor", "reference", 64), ("linformer", "reference", 64),
    )
    for phase in ("forward", "train")
]  # fmt: skip
CUDA_COLUMNS = (
    "attention", "backend", "phase", "n", "m", "kernels", "harness_ms", "low_ms", "high_ms", "host_ms", "do_bench_ms",
    "do_bench_held_ms", "graph_ms", "cupti_ms", "span_ms", "samples", "voids", "hold_ms", "seconds", "gpu", "note",
)  # fmt: skip


def main() -> None:
    """Measure every case and write one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--seconds", type=float, help="at most: on a CPU a case (240), on CUDA all of them (80)")
    parser.add_argument("--precision", type=float, default=0.01, help="CPU: half the interval at which a case ends")
    parser.add_argument("--turn", type=float, default=0.1, help="CPU: seconds of samples, a side and round, at least")
    parser.add_argument("--budget", type=float, default=0.2, help="CUDA: seconds of samples, a clock and case")
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("w", encoding="utf-8", newline="") as file:
        cuda = given.device.startswith("cuda")
        columns: tuple[str, ...] = CUDA_COLUMNS if cuda else COLUMNS
        writer: csv.DictWriter[str] = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in _on_cuda(given) if cuda else _on_cpu(given):
            writer.writerow(row)
            file.flush()
            print(_cuda_line(row) if cuda else _cpu_line(row), flush=True)


def _on_cpu(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for name, backend, m in CASES:
        for n in TOKENS:
            yield _row(name, backend, n, m, given.seconds or 240.0, given.precision, given.turn)


def _on_cuda(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    device, began = torch.device(given.device), time.monotonic()
    gpu = torch.cuda.get_device_name(device)
    for attention, backend, n, m, phase in CUDA_CASES:
        started = time.monotonic()
        head = {"attention": attention, "backend": backend, "phase": phase, "n": n, "m": m, "gpu": gpu}
        if started - began > (given.seconds or 80.0):
            yield head | {"note": "not reached"}
            continue
        found = Compared()
        try:
            case = Case(
                attention=attention, backend=backend, scope="core", phase=phase, b=1, h=12, n=n, d=64, m=m,
                dtype="bfloat16", device=str(device),
            )  # fmt: skip
            found = compare(Subject(case), device, budget_s=given.budget)
            gc.collect()
            torch.cuda.empty_cache()
        except Exception as error:
            found.failures["case"] = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        notes = [found.wall, *(f"{clock}: {why}" for clock, why in found.failures.items())]
        figures = {name: value for name, value in asdict(found).items() if name in CUDA_COLUMNS}
        yield head | figures | {
            "seconds": round(time.monotonic() - started, 2), "note": "; ".join(filter(None, notes)),
        }  # fmt: skip


def _cpu_line(row: dict[str, Any]) -> str:
    return (
        f"{row['attention']:>6}:{row['backend']:<9} n={row['n']:<5} harness {row['harness_ms']:8.3f} ms  "
        f"Timer {row['timer_ms']:8.3f} ms  {100 * row['difference']:+.2f} % "
        f"({100 * row['low']:+.2f} to {100 * row['high']:+.2f}), {row['rounds']} rounds"
    )


def _cuda_line(row: dict[str, Any]) -> str:
    ours = row.get("harness_ms")
    name = f"{row['attention']}:{row['backend']} {row['phase']} n={row['n']}"
    times = [
        f"{clock} {row[f'{clock}_ms']:.4f} ms" for clock in ("harness", "host") if row.get(f"{clock}_ms") is not None
    ]
    others = ("do_bench", "do_bench_held", "graph", "span", "cupti")
    against = [
        f"{clock} {100 * (ours / row[f'{clock}_ms'] - 1):+.2f} %" for clock in others
        if ours is not None and row.get(f"{clock}_ms") is not None
    ]  # fmt: skip
    return f"{name:<38} {', '.join(times)}; harness against {', '.join(against)}; {row['note']}"


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

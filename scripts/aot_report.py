"""Registers, spills and shared memory of every Triton kernel and shape class, compiled for GPUs that need not be here.

    python scripts/aot_report.py                                 # → aot_report.csv, and a table of what is tight
    python scripts/aot_report.py --capability 90 --dtype bfloat16 --d 64 --m 64,256 --schedule single

Exit code 1 if a kernel spills or exceeds the shared memory of its GPU.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
import triton

from attentions.kernels import ahead
from attentions.kernels.anchor import choices, cost, devices
from attentions.kernels.anchor.plan import Launch
from harness.machine import parent

GPUS = {80: devices.A100, 90: devices.H100}
COLUMNS = ("triton", "capability", "schedule", "phase", "dtype", "n", "d", "m", "kernel", "tokens", "anchors", "warps",
           "stages", "registers", "spilled_bytes", "shared_bytes", "shared_limit_bytes", "resident")  # fmt: skip
Problem = tuple[str, ...]  # capability, schedule, phase, dtype, n, d, m, b


def main() -> int:
    options = _parse()
    axes = ("capability", "schedule", "phase", "dtype", "n", "d", "m", "b")
    tasks = _unlike(itertools.product(*(getattr(options, axis) for axis in axes)))
    broken = 0
    print(f"{'sm':>3} {'schedule':10} {'phase':8} {'dtype':8} {'d':>4} {'m':>4}  registers, spills, shared, resident")
    workers = ProcessPoolExecutor(options.jobs, initializer=parent.die_with)
    with Path(options.out).open("w", newline="") as file, workers as pool:
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        table.writeheader()
        for row in pool.map(_compile, tasks):
            ok = not row["spilled_bytes"] and row["shared_bytes"] <= row["shared_limit_bytes"]
            broken += not ok
            table.writerow(row)
            file.flush()
            print(
                f"{row['capability']:>3} {row['schedule']:10} {row['phase']:8} {row['dtype']:8} {row['d']:>4} "
                f"{row['m']:>4}  {row['kernel']}: {row['registers']}, {row['spilled_bytes']}, {row['shared_bytes']}, "
                f"{row['resident']}{'' if ok else '   <-- does not fit'}",
                flush=True,
            )
    print(f"{len(tasks)} kernels, {broken} that spill or do not fit. Rows in {options.out}")
    return 1 if broken else 0


def _unlike(problems: Iterable[Problem]) -> list[tuple[Problem, int]]:
    """Each kernel that the problems need once: the first problem that needs it, and its place among the launches."""
    found: dict[tuple[Any, ...], tuple[Problem, int]] = {}
    for problem in problems:
        for place, launch in enumerate(_launches(problem)):
            fixed = {x.name for x in launch.kernel.params if x.is_constexpr}
            values = (x[1] for x in launch.arguments.items() if x[0] in fixed or isinstance(x[1], tuple))
            constants = (*launch.constants.items(), *map(_compiled_in, values))
            what = (problem[0], problem[3], launch.kernel.__name__, launch.warps, launch.stages, constants)
            found.setdefault(what, (problem, place))
    return list(found.values())


def _compiled_in(value: Any) -> Any:
    """What of an argument is a constant of the kernel: of a tuple of strides the one between tokens."""
    return getattr(value[-1], "value", None) if isinstance(value, tuple) else value


def _compile(task: tuple[Problem, int]) -> dict[str, Any]:
    """A row of the report."""
    problem, place = task
    capability, schedule, phase, dtype, n, d, m, _ = problem
    launch = _launches(problem)[place]
    found = ahead.compile_launch(launch, capability=int(capability))
    return dataclasses.asdict(found) | {
        "schedule": schedule, "phase": phase, "dtype": dtype, "n": n, "d": d, "m": m, "warps": launch.warps,
        "tokens": launch.constants.get("BLOCK_N", ""), "anchors": launch.constants.get("BLOCK_M", ""),
        "stages": launch.stages, "shared_limit_bytes": ahead.SHARED_LIMIT[int(capability)],
        "resident": found.resident, "triton": triton.__version__,
    }  # fmt: skip


def _launches(problem: Problem) -> tuple[Launch, ...]:
    """The launches of a pass; none where the schedule is not to be had."""
    capability, schedule, phase, dtype, n, d, m, b = problem
    plan = cost.sketch(
        b=int(b), h=12, n=int(n), d=int(d), m=int(m), dtype=getattr(torch, dtype), phase=phase,
        device=GPUS[int(capability)], schedule=schedule,
    )  # fmt: skip
    return plan.launches if plan.choice.schedule == schedule else ()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def words(text: str) -> list[str]:
        return text.split(",")

    parser.add_argument("--capability", type=words, default=["90", "80"])
    parser.add_argument("--schedule", type=words, default=list(choices.SCHEDULES))
    parser.add_argument("--phase", type=words, default=["forward", "backward"])
    parser.add_argument("--dtype", type=words, default=["bfloat16", "float32"])
    parser.add_argument("--n", type=words, default=["16384", "1000", "1024"], help="1000: ragged, the costlier code")
    parser.add_argument("--d", type=words, default=[str(d) for d in choices.HEAD_DIMS])
    parser.add_argument("--m", type=words, default=["16", "30", "50", "64", "100", "128", "256", "300", "512"])
    parser.add_argument("--b", type=words, default=["8", "1"], help="of 12 heads; 1: far fewer than multiprocessors")
    parser.add_argument("--jobs", type=int, default=1, help="processes that compile")
    parser.add_argument("--out", default="aot_report.csv")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

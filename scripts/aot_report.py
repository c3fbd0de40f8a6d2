"""Registers, spills and shared memory of every Triton kernel and shape class, compiled for GPUs that need not be here.

    python scripts/aot_report.py                                 # → aot_report.csv, and a table of what is tight
    python scripts/aot_report.py --capability 90 --dtype bfloat16 --d 64 --m 64,256 --schedule persistent

Exit code 1 if a kernel spills or exceeds the shared memory of its GPU.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import sys
from pathlib import Path

import torch

from attentions.kernels import ahead, anchor_plan

GPUS = {80: anchor_plan.A100, 90: anchor_plan.H100}
COLUMNS = ("capability", "schedule", "phase", "dtype", "n", "d", "m", "kernel", "tokens", "warps", "stages",
           "registers", "spilled_bytes", "shared_bytes", "shared_limit_bytes", "resident")  # fmt: skip


def main() -> int:
    options = _parse()
    axes = (options.capability, options.schedule, options.phase, options.dtype, options.n, options.d, options.m)
    seen, broken = set(), 0
    print(f"{'sm':>3} {'schedule':10} {'phase':8} {'dtype':8} {'d':>4} {'m':>4}  registers, spills, shared, resident")
    with Path(options.out).open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for capability, schedule, phase, dtype_name, n, d, m in itertools.product(*axes):
            launches = plan(int(n), int(d), int(m), getattr(torch, dtype_name), int(capability), schedule, phase)
            for launch in launches or ():
                what = (
                    capability,
                    launch.kernel.__name__,
                    launch.warps,
                    launch.stages,
                    *launch.constants.items(),
                    dtype_name,
                )
                if what in seen:
                    continue
                seen.add(what)
                found = ahead.compile_launch(launch, capability=int(capability))
                limit = ahead.SHARED_LIMIT[int(capability)]
                ok = not found.spilled_bytes and found.shared_bytes <= limit
                broken += not ok
                table.writerow(
                    {"schedule": schedule, "phase": phase, "dtype": dtype_name, "n": n, "d": d, "m": m,
                     "tokens": launch.constants.get("BLOCK_N", ""), "warps": launch.warps, "stages": launch.stages,
                     "shared_limit_bytes": limit, "resident": found.resident}
                    | {name: value for name, value in dataclasses.asdict(found).items() if name in COLUMNS}
                )  # fmt: skip
                file.flush()
                print(
                    f"{capability:>3} {schedule:10} {phase:8} {dtype_name:8} {d:>4} {m:>4}  {found.kernel}: "
                    f"{found.registers}, {found.spilled_bytes}, {found.shared_bytes}, {found.resident}"
                    f"{'' if ok else '   <-- does not fit'}",
                    flush=True,
                )
    print(f"{len(seen)} kernels, {broken} that spill or do not fit. Rows in {options.out}")
    return 1 if broken else 0


def plan(
    n: int, d: int, m: int, dtype: torch.dtype, capability: int, schedule: str, phase: str, b: int = 8, h: int = 12
) -> tuple[anchor_plan.Launch, ...] | None:
    """The launches of a pass; None where a persistent schedule is not to be had."""
    device = GPUS[capability]
    k = torch.empty(b, h, n, d, dtype=dtype, device="meta")
    anchors = torch.empty(m, d, device="meta")
    kind = anchor_plan.shape_class(k, anchors, phase)
    choice = anchor_plan.default_choice(kind, n=n, m=m, parts=b * h, device=device, schedule=schedule)
    if choice.schedule != schedule:
        return None
    if phase == "forward":
        return anchor_plan.forward(k, k, anchors, device=device, choice=choice).launches
    means, degree = torch.empty(b * h, m, d, device="meta"), torch.empty(b * h, m, device="meta")
    return anchor_plan.backward(k, k, k, anchors, means, degree, device=device, choice=choice).launches


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def words(text: str) -> list[str]:
        return text.split(",")

    parser.add_argument("--capability", type=words, default=["90", "80"])
    parser.add_argument("--schedule", type=words, default=list(anchor_plan.SCHEDULES))
    parser.add_argument("--phase", type=words, default=["forward", "backward"])
    parser.add_argument("--dtype", type=words, default=["bfloat16", "float32"])
    parser.add_argument("--n", type=words, default=["16384", "1000"], help="1000: ragged, the costlier code")
    parser.add_argument("--d", type=words, default=[str(d) for d in anchor_plan.HEAD_DIMS])
    parser.add_argument("--m", type=words, default=["16", "30", "64", "128", "256", "512"])
    parser.add_argument("--out", default="aot_report.csv")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

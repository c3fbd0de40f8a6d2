"""What the host does in a known call of the anchor kernels, with launches replaced by nothing; needs no device.

    python scripts/anchor_host.py                   # a table, and anchor_host.csv: functions, allocations, microseconds
    python scripts/anchor_host.py --n 8192 --schedule split --rounds 100
    python scripts/anchor_host.py --label after --add      # rows that say so, after those that the file has

`functions` of Python are entered and `in C` called (sys.setprofile); `us` is CPU time of the thread, the median over
rounds of a mean over calls, the rows of a table in turns. The row `torch` is an autograd function that allocates the
results alone and does nothing else: what no kernel behind torch.autograd.Function can go below.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "attentions" / "kernels")]

import torch  # noqa: E402
import triton  # noqa: E402
from driverless import entered, without_device  # noqa: E402
from torch import Tensor  # noqa: E402

from attentions.kernels.anchor import plan  # noqa: E402
from attentions.kernels.anchor.operators import anchor_attention, anchor_attention_fused  # noqa: E402

COLUMNS: tuple[str, ...] = (
    "label",
    "torch",
    "triton",
    "b",
    "h",
    "n",
    "d",
    "m",
    "schedule",
    "call",
    "of",
    "functions",
    "in_c",
    "allocations",
    "us",
)


class Alone(torch.autograd.Function):
    """As many results as anchor attention has, and nothing in them."""

    @staticmethod
    def forward(ctx: Any, k: Tensor, v: Tensor, anchors: Tensor) -> Tensor:
        ctx.save_for_backward(k, v, anchors)
        return torch.empty_strided(k.shape, k.stride(), dtype=k.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_strided(x.shape, x.stride(), dtype=x.dtype) for x in ctx.saved_tensors)


def main() -> None:
    """Count and time every call with every schedule asked for."""
    options = _parse()
    size = {name: getattr(options, name) for name in "bhndm"}
    rows: list[dict[str, Any]] = []
    for schedule in options.schedule.split(","):
        with without_device(silent=True):
            calls = _calls(**size, schedule=schedule)
            seconds, allocations = _times(calls, rounds=options.rounds, calls_a_round=options.calls), allocated(calls)
            for (call, of), function in calls.items():
                functions, in_c = entered(function)
                row = {"label": options.label, "torch": torch.__version__, "triton": triton.__version__, **size}
                row |= {"schedule": schedule, "call": call, "of": of, "functions": functions, "in_c": in_c}
                rows.append(row | {"allocations": allocations[call, of], "us": round(1e6 * seconds[call, of], 2)})
    out = Path(options.out)
    begun = options.add and out.exists()
    with out.open("a" if begun else "w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        if not begun:
            table.writeheader()
        table.writerows(rows)
    print(f"{'schedule':9}{'call':22}{'of':8}{'functions':>10}{'in C':>7}{'allocations':>13}{'us':>8}")
    for row in rows:
        print("{schedule:9}{call:22}{of:8}{functions:>10}{in_c:>7}{allocations:>13}{us:>8.1f}".format_map(row))


def _calls(*, b: int, h: int, n: int, d: int, m: int, schedule: str) -> dict[tuple[str, str], Callable[[], object]]:
    k, v, g = (torch.zeros(b, h, n, d, dtype=torch.bfloat16) for _ in range(3))
    kv, anchors = torch.zeros(b, n, 2, h, d, dtype=torch.bfloat16), torch.zeros(m, d)
    apart = [x.detach().requires_grad_() for x in (k, v, anchors)]
    fused, back = [x.detach().requires_grad_() for x in (kv, anchors)], torch.zeros(b, n, h, d, dtype=torch.bfloat16)

    def of(*tensors: Tensor) -> Tensor:
        return anchor_attention(*tensors, schedule=schedule)

    def of_fused(*tensors: Tensor) -> Tensor:
        return anchor_attention_fused(*tensors, schedule=schedule)

    return {
        ("forward", "kernels"): lambda: of(k, v, anchors),
        ("forward", "fused"): lambda: of_fused(kv, anchors),
        ("for a gradient", "kernels"): lambda: of(*apart),
        ("for a gradient", "torch"): lambda: Alone.apply(*apart),
        ("forward and backward", "kernels"): lambda: torch.autograd.grad(of(*apart), apart, g),
        ("forward and backward", "fused"): lambda: torch.autograd.grad(of_fused(*fused), fused, back),
        ("forward and backward", "torch"): lambda: torch.autograd.grad(Alone.apply(*apart), apart, g),
    }


def _times(calls: dict[Any, Callable[[], object]], *, rounds: int, calls_a_round: int) -> dict[Any, float]:
    """Seconds of the thread a call."""
    taken: dict[Any, list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, function in calls.items():
            function()
            begun = time.thread_time_ns()
            for _ in range(calls_a_round):
                function()
            taken[key].append((time.thread_time_ns() - begun) / 1e9 / calls_a_round)
    return {key: statistics.median(each) for key, each in taken.items()}


def allocated(calls: dict[Any, Callable[[], object]]) -> dict[Any, int]:
    """Tensors that known calls allocate; the plans are made anew, for those that are there allocate uncounted."""
    count: list[object] = []

    def counting(*shape: Any, **keywords: Any) -> Tensor:
        count.append(shape)
        return empty(*shape, **keywords)

    empty, found = torch.empty_strided, {}
    before, plan.allocate, torch.empty_strided = plan.allocate, lambda *x, **y: counting(*x, **y), counting
    try:
        with without_device(silent=True):
            for key, function in calls.items():
                function()
                count.clear()
                function()
                found[key] = len(count)
    finally:
        plan.allocate, torch.empty_strided = before, empty
    return found


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("b", 1), ("h", 12), ("n", 512), ("d", 64), ("m", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--schedule", default="split,single", help="schedules with commas between")
    parser.add_argument("--rounds", type=int, default=40, help="each call is timed once a round")
    parser.add_argument("--calls", type=int, default=300, help="calls a round, whose mean is taken")
    parser.add_argument("--label", default="", help="told in every row")
    parser.add_argument("--add", action="store_true", help="add the rows to the file")
    parser.add_argument("--out", default="anchor_host.csv")
    return parser.parse_args()


if __name__ == "__main__":
    main()

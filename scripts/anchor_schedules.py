"""Device time of the anchor kernels' schedules and tiles beside exact attention, forward and backward.

    python scripts/anchor_schedules.py --out results/h200/kernels_single.csv --seconds 60

Each call is timed by events behind a kernel that spins, so that the host's share is not in it, with the L2 overwritten
before; a line holds the median. `to_split` is ‖result − split's‖ / ‖split's‖, of O or of dK.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from attentions.kernels.anchor import choices, devices, plan_backward, plan_forward  # noqa: E402
from attentions.kernels.anchor.choices import Choice  # noqa: E402
from attentions.kernels.anchor.plan import Plan, kept_places  # noqa: E402
from attentions.kernels.anchor.tiles import Tile  # noqa: E402

# b, h, n, m: vision transformers at 224² and 384², one picture and many; then where `single` should end.
CASES = ((64, 3, 198, 30), (64, 12, 198, 30), (1, 12, 198, 30), (1, 12, 512, 64), (8, 12, 512, 64), (64, 6, 256, 64),
         (16, 12, 577, 64), (16, 12, 1024, 64), (8, 12, 1024, 64))  # fmt: skip
TILES = ((64, 4, 2), (64, 4, 3), (64, 4, 4), (128, 4, 3), (128, 8, 2), (128, 8, 3))  # tokens, warps, stages
COLUMNS = ("device", "b", "h", "n", "d", "m", "dtype", "phase", "what", "tokens", "warps", "stages", "ms", "to_split")
D, SPIN, CALLS = 64, 2_000_000, 40  # SPIN: clocks, longer than the host takes to enqueue a call


class Clock:
    """The device's own time of a call."""

    def __init__(self) -> None:
        size = torch.cuda.get_device_properties(0).L2_cache_size
        self.written = torch.empty(size, dtype=torch.int8, device="cuda")
        self.read = torch.ones(size // 2, device="cuda")  # twice the cache

    def ms(self, call: Callable[[], object]) -> float:
        """Median of CALLS calls, after three that do not count."""
        for _ in range(3):
            call()
        return statistics.median(self.once(call) for _ in range(CALLS))

    def once(self, call: Callable[[], object]) -> float:
        """One call, in ms."""
        torch.cuda._sleep(SPIN)
        self.written.zero_()
        self.read.sum()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end)


def candidates(k: Tensor, anchors: Tensor, phase: str) -> Iterator[Choice]:
    """Split as it is, then single with each tile, where it is to be had."""
    b, h, n, _ = k.shape
    kind, device = choices.shape_class(k, anchors, phase), devices.device_of(k.device)
    sizes = {"n": n, "m": anchors.shape[0], "parts": b * h, "device": device}
    yield choices.default_choice(kind, **sizes, schedule="split")
    single = choices.default_choice(kind, **sizes, schedule="single")
    if single.schedule == "single":
        for tokens, warps, stages in TILES:
            yield replace(single, tiles={f"single_{phase}": Tile(tokens, 0, warps, stages, 1)})


def measure(case: tuple[int, int, int, int], clock: Clock) -> Iterator[dict[str, object]]:
    """The rows of a case."""
    b, h, n, m = case
    q, k, v, g = (torch.randn(b, h, n, D, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    anchors = F.normalize(torch.randn(m, D, device="cuda"), dim=-1) * 4 * math.sqrt(D)
    kept = torch.empty(kept_places(b * h, m, D)[2], device="cuda")
    out, grad_k, grad_v, grad_anchors = (torch.empty_like(x) for x in (k, k, v, anchors))
    given = {
        "forward": dict(zip(plan_forward.TENSORS, (k, v, anchors, out, kept), strict=True)),
        "backward": dict(
            zip(plan_backward.TENSORS, (g, k, v, anchors, kept, grad_k, grad_v, grad_anchors), strict=True)
        ),
    }
    same = {"device": torch.cuda.get_device_name(), "b": b, "h": h, "n": n, "d": D, "m": m, "dtype": "bfloat16"}
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    exact = F.scaled_dot_product_attention(*leaves)

    def backward() -> None:
        for leaf in leaves:
            leaf.grad = None
        exact.backward(g, retain_graph=True)

    for phase, result in (("forward", out), ("backward", grad_k)):
        sdpa = backward if phase == "backward" else lambda: F.scaled_dot_product_attention(q, k, v)
        yield {**same, "phase": phase, "what": "sdpa", "ms": f"{clock.ms(sdpa):.4f}"}
        split: Tensor | None = None
        for choice in candidates(k, anchors, phase):
            planned = _planned(phase, g, k, v, anchors, choice)
            planned.run(given[phase])
            split = result.double() if split is None else split
            row = {**same, "phase": phase, "what": choice.schedule}
            if choice.schedule == "single":
                (tile,) = choice.tiles.values()
                row |= {"tokens": tile.tokens, "warps": tile.warps, "stages": tile.stages}
            apart = ((result.double() - split).norm() / split.norm()).item()
            ms = clock.ms(lambda planned=planned, phase=phase: planned.run(given[phase]))
            yield {**row, "ms": f"{ms:.4f}", "to_split": f"{apart:.1e}"}


def _planned(phase: str, g: Tensor, k: Tensor, v: Tensor, anchors: Tensor, choice: Choice) -> Plan:
    if phase == "forward":
        return plan_forward.forward(k, v, anchors, choice=choice)
    return plan_backward.backward(g, k, v, anchors, choice=choice)


def main() -> None:
    """Measure the cases in order while there is time, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("kernels_single.csv"))
    parser.add_argument("--seconds", type=float, default=60.0, help="no case is begun later")
    given = parser.parse_args()
    begun, clock = time.perf_counter(), Clock()
    with given.out.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for case in CASES:
            if time.perf_counter() - begun > given.seconds:
                print(f"no time for {case} and what follows")
                break
            for row in measure(case, clock):
                table.writerow(row)
                print(*(row.get(name, "") for name in COLUMNS[1:]), flush=True)


if __name__ == "__main__":
    main()

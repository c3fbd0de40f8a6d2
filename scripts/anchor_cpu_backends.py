"""Which backend of anchor attention is fastest on this machine's CPU, and is the default no slower than the release?

    python scripts/anchor_cpu_backends.py                        # → anchor_cpu_backends.csv, and a table
    python scripts/anchor_cpu_backends.py --n 1024,4096 --dtype float32 --phase forward --rounds 30 --compile

All candidates of a case run in one process, in turn, in an order that is shuffled each round; the figure is the median
over the rounds of each candidate's time divided by the release's time *in the same round*, so that a machine that slows
down for a while slows all of them. `released` is the release's formulation, Δ⁻¹ as a (b, h, m, m) diagonal matrix that
is multiplied; `default` is what the bare name `anchor` takes.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

import attentions

COLUMNS = (
    "b", "h", "n", "d", "m", "dtype", "phase", "candidate", "backend", "threads", "rounds", "latency_ms",
    "ratio_to_released", "ratio_p20", "ratio_p80",
)  # fmt: skip


def released(k: Tensor, v: Tensor, anchors: Tensor) -> Tensor:
    """The release's formulation, right to left: logits scaled after their product, Δ⁻¹ a matrix for every head."""
    a = torch.softmax(k @ anchors.to(k.dtype).transpose(-2, -1) * k.shape[-1] ** -0.5, dim=-1)
    inverse = torch.diag_embed(1 / a.sum(dim=-2))
    return a @ (inverse @ (a.transpose(-2, -1) @ v))


def main() -> None:
    options = _parse()
    candidates: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"released": released}
    for name in options.backends.split(","):
        candidates[name] = attentions.spec("anchor").backend(name).compute
    if options.compile:
        candidates["compile"] = attentions.spec("anchor").backend("compile").compute
    b, h, d = options.b, options.h, options.d
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, b{b} h{h} d{d}; time over `released`")
    print(
        f"{'m':>4} {'n':>7} {'dtype':9} {'phase':8} {'released':>11}  "
        + "  ".join(f"{name:>10}" for name in [*candidates][1:])
    )
    with Path(options.out).open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        axes = (options.m, options.dtype, options.n, options.phase)
        for m, dtype_name, n, phase in itertools.product(*(axis.split(",") for axis in axes)):
            n, m, dtype = int(n), int(m), getattr(torch, dtype_name)
            work = attentions.Work(b=b, h=h, n=n, d=d, m=m, phase=phase, itemsize=dtype.itemsize)
            default = attentions.resolve("anchor", device="cpu", dtype=dtype, work=work).name
            rows = _case(candidates, b, h, n, d, m, dtype, phase, options.rounds, options.seconds)
            for row in rows:
                table.writerow(row | {"candidate": "default" if row["backend"] == default else ""})
            file.flush()
            ratios = [f"{row['ratio_to_released']:>9.2f}{'*' if row['backend'] == default else ' '}" for row in rows]
            print(
                f"{m:>4} {n:>7} {dtype_name:9} {phase:8} {rows[0]['latency_ms']:>8.2f} ms  " + "  ".join(ratios[1:]),
                flush=True,
            )
    print(f"* the default backend. Rows in {options.out}")


def _case(
    candidates: dict[str, Callable[..., Tensor]], b: int, h: int, n: int, d: int, m: int, dtype: torch.dtype,
    phase: str, rounds: int, seconds: float,
) -> list[dict[str, object]]:  # fmt: skip
    torch.manual_seed(0)
    k, v, g = (torch.randn(b, h, n, d).to(dtype) for _ in range(3))
    anchors = torch.nn.init.uniform_(torch.empty(m, d), -(d**-0.5), d**-0.5)
    inputs = [x.requires_grad_(phase == "train") for x in (k, v, anchors)]

    def once(compute: Callable[..., Tensor]) -> float:
        for x in inputs:
            x.grad = None
        start = time.perf_counter_ns()
        if phase == "train":
            compute(*inputs).backward(g)
        else:
            with torch.no_grad():
                compute(*inputs)
        return (time.perf_counter_ns() - start) / 1e6

    for compute in candidates.values():
        once(compute)
        once(compute)
    times: dict[str, list[float]] = {name: [] for name in candidates}
    order, deadline = list(candidates), time.monotonic() + seconds
    shuffle = random.Random(0)
    while len(times["released"]) < rounds and (len(times["released"]) < 5 or time.monotonic() < deadline):
        shuffle.shuffle(order)
        for name in order:
            times[name].append(once(candidates[name]))
    rows = []
    for name, taken in times.items():
        ratios = [one / other for one, other in zip(taken, times["released"], strict=True)]
        low, high = _percentile(ratios, 20), _percentile(ratios, 80)
        rows.append(
            {"b": b, "h": h, "n": n, "d": d, "m": m, "dtype": str(dtype).removeprefix("torch."), "phase": phase,
             "backend": name, "threads": torch.get_num_threads(), "rounds": len(taken),
             "latency_ms": statistics.median(taken), "ratio_to_released": statistics.median(ratios),
             "ratio_p20": low, "ratio_p80": high}
        )  # fmt: skip
    return rows


def _percentile(values: Iterable[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", default="1024,4096,16384,65536", help="token counts")
    parser.add_argument("--m", default="64", help="anchor numbers")
    parser.add_argument("--dtype", default="float32,bfloat16")
    parser.add_argument("--phase", default="forward,train")
    parser.add_argument("--backends", default="reference,sdpa,chunked", help="to compare with the release")
    parser.add_argument("--compile", action="store_true", help="torch.compile too: some ten seconds a case")
    parser.add_argument("--rounds", type=int, default=25, help="at most, each candidate once a round")
    parser.add_argument("--seconds", type=float, default=15.0, help="of rounds a case")
    for name, default in (("b", 1), ("h", 6), ("d", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", default="anchor_cpu_backends.csv")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Which backend of anchor attention is fastest on this machine's CPU, and is the default no slower than the release?

    python scripts/anchor_cpu_backends.py                        # → anchor_cpu_backends.csv, and a table
    python scripts/anchor_cpu_backends.py --n 1024,4096 --dtype float32 --phase forward --rounds 30 --compile
    python scripts/anchor_cpu_backends.py --backends reference,chunked --blocks 256,1024     # chunked@256, chunked@1024
    python scripts/anchor_cpu_backends.py --dtype bfloat16 --compile --loop --rates    # over flash, of a product's rate
    python scripts/anchor_cpu_backends.py --one-thread                                       # beside other work
    python scripts/anchor_cpu_backends.py --kept --append    # as harness run keeps freed memory; more rows

All candidates of a case run in one process, in turn, in an order that is shuffled each round; the figure is the median
over the rounds of each candidate's time divided by the release's time *in the same round*, so that a machine that slows
down for a while slows all of them. `released` is the release's formulation, Δ⁻¹ as a (b, h, m, m) diagonal matrix that
is multiplied; `default` is what the bare name `anchor` takes; `loop` is a loop over blocks of tokens, the inside of
which torch.compile fuses. With --rates exact attention of the same k and v runs among them (`flash`), and a product of
square matrices (`product`): `ratio_to_flash`, and `share_of_product`, the definition's FLOP/s (6·b·h·n·m·d a forward
pass, three times that in training) over the product's. With --one-thread times are CPU time of the only thread: two
threads that wait for each other beside other work measure the waiting. With --kept the process keeps the memory that
calls free, as one of harness run does (harness/machine/allocator.py); without, each call fetches blocks of 32 MiB and
more anew, as in a process of one's own.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import attentions
from attentions.kernels.anchor import chunked
from harness.machine import allocator

COLUMNS: tuple[str, ...] = (
    "b", "h", "n", "d", "m", "dtype", "phase", "candidate", "backend", "threads", "clock", "freed", "rounds",
    "latency_ms", "ratio_to_released", "ratio_p20", "ratio_p80", "ratio_to_flash", "gflop_per_s", "share_of_product",
)  # fmt: skip
SIDE = 2048  # of the square matrices
LOOP_BYTES = 2**20  # of a block of A in `loop`

Compute = Callable[[Tensor, Tensor, Tensor], Tensor]


def released(k: Tensor, v: Tensor, anchors: Tensor) -> Tensor:
    """The release's formulation, right to left: logits scaled after their product, Δ⁻¹ a matrix for every head."""
    a = torch.softmax(k @ anchors.to(k.dtype).transpose(-2, -1) * k.shape[-1] ** -0.5, dim=-1)
    inverse = torch.diag_embed(1 / a.sum(dim=-2))
    return a @ (inverse @ (a.transpose(-2, -1) @ v))


def exact(k: Tensor, v: Tensor, anchors: Tensor) -> Tensor:
    """Exact attention of k to k."""
    return F.scaled_dot_product_attention(k, k, v)


def chunked_at(kibibytes: int) -> Compute:
    """The backend `chunked` with blocks of A of another size."""

    def compute(k: Tensor, v: Tensor, anchors: Tensor) -> Tensor:
        before, chunked.BLOCK_BYTES = chunked.BLOCK_BYTES, 1024 * kibibytes
        try:
            return chunked.chunked(k, v, anchors)
        finally:
            chunked.BLOCK_BYTES = before

    return compute


def gather_block(k: Tensor, v: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Aᵀv and Aᵀ1 of a block of tokens of all heads."""
    a = torch.softmax(k @ u.t(), -1)
    return (a.transpose(-2, -1) @ v).float(), a.sum(-2, dtype=torch.float32)


def scatter_block(k: Tensor, u: Tensor, means: Tensor) -> Tensor:
    """A W of a block."""
    return torch.softmax(k @ u.t(), -1) @ means


def gradient_block(
    k: Tensor, v: Tensor, g: Tensor, u: Tensor, means: Tensor, grad_sums: Tensor, grad_degree: Tensor
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dK, dV and the block's share of dU, before its factor 1/√d."""
    a = torch.softmax(k @ u.t(), -1)
    da = g @ means.transpose(-2, -1) + v @ grad_sums.transpose(-2, -1) + grad_degree.unsqueeze(-2)
    ds = (da - (a * da).sum(-1, keepdim=True)) * a
    return ds @ u, a @ grad_sums, (ds.transpose(-2, -1) @ k).sum((0, 1), dtype=torch.float32)


class Loop(torch.autograd.Function):
    """The algorithm of `chunked` (attentions/kernels/anchor/__init__.py), each block's work one compiled graph."""

    gather: Any
    scatter: Any
    gradient: Any
    gather, scatter, gradient = (
        staticmethod(torch.compile(body, dynamic=False)) for body in (gather_block, scatter_block, gradient_block)
    )

    @staticmethod
    def forward(ctx: Any, k: Tensor, v: Tensor, anchors: Tensor) -> Tensor:
        b, h, n, d = k.shape
        u = (anchors / math.sqrt(d)).to(k.dtype)
        ctx.tokens = max(64, min(n, LOOP_BYTES // (b * h * len(anchors) * k.element_size())))
        gathered = [Loop.gather(*x, u) for x in Loop.blocks(ctx, k, v)]
        sums: Any = sum(x for x, _ in gathered)
        degree: Any = sum(x for _, x in gathered)
        means = (sums / degree.unsqueeze(-1)).to(k.dtype)
        out = torch.empty_like(k)
        for keys, place in Loop.blocks(ctx, k, out):
            place.copy_(Loop.scatter(keys, u, means))
        ctx.save_for_backward(k, v, u, means, degree)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        k, v, u, means, degree = ctx.saved_tensors
        sums: Any = sum(Loop.gather(*x, u)[0] for x in Loop.blocks(ctx, k, g))
        inverse = 1 / degree.unsqueeze(-1)
        grad_degree = (-(sums * means).sum(-1) * inverse.squeeze(-1)).to(k.dtype)
        grad_sums = (sums * inverse).to(k.dtype)
        grad_k, grad_v = torch.empty_like(k), torch.empty_like(v)
        grad_u: Any = 0
        for *given, to_k, to_v in Loop.blocks(ctx, k, v, g, grad_k, grad_v):
            of_k, of_v, of_u = Loop.gradient(*given, u, means, grad_sums, grad_degree)
            to_k.copy_(of_k), to_v.copy_(of_v)
            grad_u = grad_u + of_u
        return grad_k, grad_v, grad_u / math.sqrt(k.shape[-1])

    @staticmethod
    def blocks(ctx: Any, *tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
        return zip(*(x.split(ctx.tokens, dim=2) for x in tensors), strict=True)


def main() -> None:
    options = _parse()
    if options.one_thread:
        torch.set_num_threads(1)
    if options.kept:
        allocator.keep()
    candidates: dict[str, Compute] = {"released": released}
    for name in options.backends.split(","):
        candidates[name] = attentions.spec("anchor").backend(name).compute
    for size in filter(None, options.blocks.split(",")):
        candidates[f"chunked@{size}"] = chunked_at(int(size))
    if options.compile:
        candidates["compile"] = attentions.spec("anchor").backend("compile").compute
    if options.loop:
        candidates["loop"] = Loop.apply
    if options.rates:
        candidates["flash"] = exact
    b, h, d = options.b, options.h, options.d
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, b{b} h{h} d{d}; time over `released`")
    print(
        f"{'m':>4} {'n':>7} {'dtype':9} {'phase':8} {'released':>11}  "
        + "  ".join(f"{name:>10}" for name in [*candidates][1:])
    )
    with Path(options.out).open("a" if options.append else "w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        if not file.tell():
            table.writeheader()
        axes = (options.m, options.dtype, options.n, options.phase)
        for m, dtype_name, n, phase in itertools.product(*(axis.split(",") for axis in axes)):
            n, m, dtype = int(n), int(m), getattr(torch, dtype_name)
            work = attentions.Work(b=b, h=h, n=n, d=d, m=m, phase=phase, itemsize=dtype.itemsize)
            default = attentions.resolve("anchor", device="cpu", dtype=dtype, work=work).name
            rows = _case(candidates, b, h, n, d, m, dtype, phase, options)
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
    candidates: dict[str, Compute], b: int, h: int, n: int, d: int, m: int, dtype: torch.dtype, phase: str,
    options: argparse.Namespace,
) -> list[dict[str, Any]]:  # fmt: skip
    torch.compiler.reset()  # past a few shapes dynamo would run a body eagerly, without a word
    torch.manual_seed(0)
    k, v, g = (torch.randn(b, h, n, d).to(dtype) for _ in range(3))
    anchors = torch.nn.init.uniform_(torch.empty(m, d), -(d**-0.5), d**-0.5)
    inputs = [x.requires_grad_(phase == "train") for x in (k, v, anchors)]
    square = torch.randn(SIDE, SIDE).to(dtype)
    clock = time.thread_time_ns if options.one_thread else time.perf_counter_ns

    def attend(compute: Compute) -> None:
        if phase == "train":
            compute(*inputs).backward(g)
        else:
            with torch.no_grad():
                compute(*inputs)

    calls: dict[str, Callable[[], object]] = {name: lambda x=x: attend(x) for name, x in candidates.items()}
    if options.rates:
        calls["product"] = lambda: square @ square

    def once(call: Callable[[], object]) -> float:
        for x in inputs:
            x.grad = None
        start = clock()
        call()
        return (clock() - start) / 1e6

    for call in calls.values():
        once(call)
        once(call)
    times: dict[str, list[float]] = {name: [] for name in calls}
    order, deadline = list(calls), time.monotonic() + options.seconds
    shuffle = random.Random(0)
    while len(times["released"]) < options.rounds and (
        len(times["released"]) < 5 or time.monotonic() < deadline
    ):  # fmt: skip
        shuffle.shuffle(order)
        for name in order:
            times[name].append(once(calls[name]))
    of = {"b": b, "h": h, "n": n, "d": d, "m": m, "dtype": str(dtype).removeprefix("torch."), "phase": phase}
    of["clock"] = "cpu" if options.one_thread else "wall"
    of["freed"] = allocator.freed() if options.kept else "as the platform has it"
    flops = 6e-6 * b * h * n * m * d * (3 if phase == "train" else 1)  # in 10⁶: over ms, GFLOP/s
    return [of | _row(name, times, flops) for name in candidates]


def _row(name: str, times: dict[str, list[float]], flops: float) -> dict[str, Any]:
    taken = times[name]
    ratios = _ratios(taken, times["released"])
    row: dict[str, Any] = {
        "backend": name, "threads": torch.get_num_threads(), "rounds": len(taken),
        "latency_ms": statistics.median(taken), "ratio_to_released": statistics.median(ratios),
        "ratio_p20": _percentile(ratios, 20), "ratio_p80": _percentile(ratios, 80),
    }  # fmt: skip
    if "flash" in times:
        row["ratio_to_flash"] = statistics.median(_ratios(taken, times["flash"]))
        if name != "flash":
            row["gflop_per_s"] = flops / statistics.median(taken)
            row["share_of_product"] = flops / (2e-6 * SIDE**3) * statistics.median(_ratios(times["product"], taken))
    return row


def _ratios(times: list[float], others: list[float]) -> list[float]:
    return [one / other for one, other in zip(times, others, strict=True)]


def _percentile(values: Iterable[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", default="1024,4096,16384,65536", help="token counts")
    parser.add_argument("--m", default="64", help="anchor numbers")
    parser.add_argument("--dtype", default="float32,bfloat16")
    parser.add_argument("--phase", default="forward,train")
    parser.add_argument("--backends", default="reference,sdpa,chunked", help="to compare with the release")
    parser.add_argument("--blocks", default="", help="chunked with blocks of so many KiB too")
    parser.add_argument("--compile", action="store_true", help="torch.compile too: some ten seconds a case")
    parser.add_argument("--loop", action="store_true", help="a loop over blocks that are compiled too")
    parser.add_argument("--rates", action="store_true", help="exact attention and a product of matrices beside them")
    parser.add_argument("--one-thread", action="store_true", help="CPU time of one thread, for a machine that is busy")
    parser.add_argument("--kept", action="store_true", help="keep the memory that calls free")
    parser.add_argument("--append", action="store_true", help="add to the rows of --out")
    parser.add_argument("--rounds", type=int, default=25, help="at most, each candidate once a round")
    parser.add_argument("--seconds", type=float, default=15.0, help="of rounds a case")
    for name, default in (("b", 1), ("h", 6), ("d", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", default="anchor_cpu_backends.csv")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""What attention over many GPUs would take, by formula from stated assumptions: a projection. No torch.

    assumed = Assumptions()                                          # one H100-like GPU and 400 Gb/s a GPU
    project("anchor", Call(b=1, h=16, n=10 << 20, d=64, m=256), ranks=64, assumed=assumed).time_s

One forward call of one layer's attention core. Two variants stand for the two ways of sharing tokens:

    anchor   compute, with one all-reduce of S = 4·b·h·m·(d+1) bytes between its two passes over the tokens:
             t = c + min(2 (P−1) (α + S / (P β)),  2 ⌈log₂ P⌉ (α + S / β))           a ring or a tree, what is faster
             c = max(6·b·h·n·m·d / P / F_A,  4·b·h·n·d·itemsize / P / M)
    flash    P blocks of n/P keys, each computed with while the next one of 2·b·h·n/P·d·itemsize bytes arrives:
             t = c + (P−1) max(c, α + block / β),   c = 4·b·h·n²·d / P² / F_E     the exchange hidden where it can be

Efficiency is t(1) / (P · t(P)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

VARIANTS = ("anchor", "flash")


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """Of one GPU and its link. Defaults: what is published for an H100 SXM, reached in part; none is measured here.

    exact_flops: F_E, FLOP/s that exact attention reaches in bfloat16; anchor_flops: F_A, the same of anchor's products;
    memory_bytes_per_s: M, reached; memory_bytes: held by a GPU; link_bytes_per_s: β, sent by a GPU to another node
    (400 Gb/s); latency_s: α, of one message.
    """

    exact_flops: float = 400e12
    anchor_flops: float = 200e12
    memory_bytes_per_s: float = 2.7e12
    memory_bytes: float = 80e9
    link_bytes_per_s: float = 50e9
    latency_s: float = 10e-6


@dataclass(frozen=True, kw_only=True)
class Call:
    """One forward call over n tokens; itemsize 2 is bfloat16."""

    b: int = 1
    h: int = 16
    n: int = 1 << 20
    d: int = 64
    m: int = 256
    itemsize: int = 2


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Seconds of one call on P ranks, of which `compute_s` would pass without any exchange; bytes that a rank sends.

    held_bytes: inputs and output of one rank; efficiency: against one rank, whether or not one could hold it all.
    """

    variant: str
    n: int
    ranks: int
    compute_s: float
    time_s: float
    bytes_sent: float
    held_bytes: int
    efficiency: float


def project(variant: str, call: Call, *, ranks: int, assumed: Assumptions) -> Projection:
    """The formulas above for one variant and number of ranks, shards equal. Raises ValueError for another variant."""
    if variant not in VARIANTS:
        raise ValueError(f"no formula for {variant!r}; valid: {', '.join(VARIANTS)}")
    timed = _anchor if variant == "anchor" else _flash
    compute, time, sent = timed(call, ranks, assumed)
    alone = timed(call, 1, assumed)[1]
    return Projection(
        variant=variant, n=call.n, ranks=ranks, compute_s=compute, time_s=time, bytes_sent=sent,
        held_bytes=4 * call.b * call.h * call.n * call.d * call.itemsize // ranks, efficiency=alone / (ranks * time),
    )  # fmt: skip


def all_reduce_s(size: float, ranks: int, assumed: Assumptions) -> float:
    """Seconds to add up `size` bytes over the ranks: by a ring or by a tree, what is faster."""
    if ranks == 1:
        return 0.0
    alpha, beta = assumed.latency_s, assumed.link_bytes_per_s
    ring = 2 * (ranks - 1) * (alpha + size / ranks / beta)
    tree = 2 * math.ceil(math.log2(ranks)) * (alpha + size / beta)
    return min(ring, tree)


def _anchor(call: Call, ranks: int, assumed: Assumptions) -> tuple[float, float, float]:
    tokens = call.b * call.h * call.n / ranks
    products = 6 * tokens * call.m * call.d / assumed.anchor_flops
    passes = 4 * tokens * call.d * call.itemsize / assumed.memory_bytes_per_s  # k, v; then k again and the output
    compute, summed = max(products, passes), 4 * call.b * call.h * call.m * (call.d + 1)
    return compute, compute + all_reduce_s(summed, ranks, assumed), 2 * summed * (ranks - 1) / ranks


def _flash(call: Call, ranks: int, assumed: Assumptions) -> tuple[float, float, float]:
    each = 4 * call.b * call.h * call.n**2 * call.d / ranks**2 / assumed.exact_flops
    block = 2 * call.b * call.h * call.n // ranks * call.d * call.itemsize
    passing = assumed.latency_s + block / assumed.link_bytes_per_s
    return ranks * each, each + (ranks - 1) * max(each, passing), (ranks - 1) * block

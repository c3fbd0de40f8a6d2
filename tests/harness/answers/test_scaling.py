"""The projection's formulas: against hand-worked numbers, the parallel code's own model, and their limits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import attentions
from attentions import parallel
from harness.answers.scaling import VARIANTS, Assumptions, Call, all_reduce_s, project

ASSUMED = Assumptions()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("ranks", [1, 8, 1024])
def test_bytes_are_those_of_the_parallel_code(variant: str, ranks: int) -> None:
    call = Call(n=1 << 20)
    work = attentions.Work(b=call.b, h=call.h, n=call.n, d=call.d, m=call.m, itemsize=call.itemsize)
    expected = parallel.volume(variant, work, ranks=ranks).wire_bytes(ranks)
    assert project(variant, call, ranks=ranks, assumed=ASSUMED).bytes_sent == expected


def test_an_all_reduce_by_hand() -> None:
    slow = Assumptions(latency_s=1.0, link_bytes_per_s=10.0)
    assert all_reduce_s(100, 1, slow) == 0
    assert all_reduce_s(100, 4, slow) == 2 * 3 * (1 + 100 / 4 / 10)  # the ring: 21 s; the tree 2·2·(1 + 10) = 44 s
    assert all_reduce_s(1, 1024, slow) == 2 * 10 * (1 + 0.1)  # the tree: 22 s; the ring 2·1023·(1 + …)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_rank_is_its_own_measure(variant: str) -> None:
    alone = project(variant, Call(), ranks=1, assumed=ASSUMED)
    assert alone.efficiency == 1
    assert alone.bytes_sent == 0
    assert alone.time_s == alone.compute_s


def test_anchor_sends_the_same_whatever_n_is_and_the_ring_in_proportion() -> None:
    short, long = Call(n=1 << 20), Call(n=100 << 20)
    anchor = [project("anchor", call, ranks=64, assumed=ASSUMED).bytes_sent for call in (short, long)]
    ring = [project("flash", call, ranks=64, assumed=ASSUMED).bytes_sent for call in (short, long)]
    assert anchor[0] == anchor[1]
    assert ring[1] == 100 * ring[0]


def test_the_rings_exchange_hides_behind_long_computation_and_not_behind_short() -> None:
    long, short = (project("flash", Call(n=n), ranks=64, assumed=ASSUMED) for n in (100 << 20, 1 << 14))
    assert long.efficiency > 0.999
    assert short.efficiency < 0.1
    free = replace(ASSUMED, link_bytes_per_s=math.inf, latency_s=0.0)
    assert project("flash", Call(n=1 << 14), ranks=64, assumed=free).efficiency == pytest.approx(1)


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match="valid: anchor, flash"):
        project("linformer", Call(), ranks=2, assumed=ASSUMED)

"""Values of scripts/anchor_forms under Triton's interpreter; run by test_forms.py in a process of its own."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from problems import Problem, distance
from together import together
from torch import Tensor
from triton.runtime import interpreter

from attentions.kernels.anchor import plan, plan_forward
from attentions.kernels.anchor.devices import Device
from attentions.kernels.anchor.plan import Plan, kept_places
from attentions.kernels.anchor.tiles import Tile
from attentions.variants.anchor import reference

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))
from anchor_forms import forms, skewed  # pyright: ignore[reportMissingImports]

BF16, FP16 = torch.bfloat16, torch.float16
PROBLEMS = [
    Problem(1, 2, 192, 64, 64, FP16),  # whole tiles, nothing padded
    Problem(2, 1, 100, 64, 64, BF16, "tokens"),
    Problem(1, 3, 70, 48, 40, FP16),  # ragged in n, m and d
    Problem(1, 1, 1, 64, 64, FP16),
]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """All workspaces start as NaN."""
    monkeypatch.setattr(
        plan, "allocate", lambda *shape, **keywords: torch.empty_strided(*shape, **keywords).fill_(float("nan"))
    )


def run(planned: Plan, problem: Problem) -> tuple[Tensor, Tensor]:
    """O, and W with δ, in memory that held NaN."""
    k, v, anchors, _ = problem.tensors()
    kept = torch.full((kept_places(problem.b * problem.h, problem.m, problem.d)[2],), float("nan"))
    out = plan.output_like(k)
    planned.run(dict(zip(plan_forward.TENSORS, (k, v, anchors, out, kept), strict=True)))
    return out, kept


def shuffled(planned: Plan, problem: Problem, seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """The same with a launch's programs taking turns by lot."""
    with monkeypatch.context() as patched:
        patched.setattr(interpreter, "GridExecutor", together(patched, seed=seed))
        return run(planned, problem)


def split(problem: Problem, *, tokens: int, span: int) -> Plan:
    """Split's plan, cut every `span` tokens."""
    k, v, anchors, _ = problem.tensors()
    device = Device("made up", 8, 90)
    found, splits = forms.split(k, v, anchors, device).choice, -(-problem.n // span)
    tiles = {role: Tile(tokens, 0, 4, 3, 1) for role in found.tiles}
    choice = replace(found, tiles=tiles, splits=splits, chunks=splits)
    planned = plan_forward.forward(k, v, anchors, device=device, choice=choice)
    gather, *others = planned.launches
    cut = {**gather.arguments, "splits": splits, "span": span}
    return replace(planned, launches=(replace(gather, arguments=cut), *others))


@pytest.mark.parametrize("form", [{"early": True}, {"mapped": True}, {"kept": True}], ids=str)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_two_launches_give_splits_values_bit_for_bit(problem: Problem, form: dict[str, bool]) -> None:
    k, v, anchors, _ = problem.tensors()
    device = Device("made up", 8, 90)
    found = run(forms.two(k, v, anchors, device, **form), problem)
    right = run(forms.split(k, v, anchors, device), problem)
    assert all(torch.equal(one, other) for one, other in zip(found, right, strict=True))
    assert not found[0].isnan().any()


# programs at once, tokens a tile, tiles an item, lag, reduce: all that n needs in one round; a last round that is not
# full; more splits than one after the other are added; a tile an item; a sum that is reduced by fewer than gathered it.
ORDERS = [(8, 16, 2, 3, 1), (7, 16, 3, 5, 1), (13, 16, 1, 1, 0), (4, 16, 4, 5, 0), (5, 32, 2, 2, 0)]


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_the_skewed_launch_gives_splits_values_and_the_same_bits_in_any_order_of_programs(
    problem: Problem, order: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, tokens, tiles, lag, reduce = order
    k, v, anchors, _ = problem.tensors()
    tile = Tile(tokens, 0, 4, 3, 1)
    planned = forms.one(
        k, v, anchors, Device("made up", at_once, 90), tile=tile, tiles=tiles, lag=lag, reduce=reduce
    )  # fmt: skip
    found, again = (shuffled(planned, problem, seed, monkeypatch) for seed in (0, 1))
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))
    out, kept = run(split(problem, tokens=tokens, span=tiles * tokens), problem)
    assert distance(found[1], kept.double()) < 1e-6  # degrees are added in another order
    assert distance(found[0], out.double()) < torch.finfo(k.dtype).eps
    exact = reference(k.double(), v.double(), anchors.double())
    assert distance(found[0], exact) <= 8 * max(distance(reference(k, v, anchors), exact), torch.finfo(k.dtype).eps)


@triton.jit
def passing_kernel(counters, out):
    """Program i waits for program i + 1, and the last one for nobody."""
    program = tl.program_id(0)
    if program + 1 < tl.num_programs(0):
        skewed.wait_for(counters + program + 1, 1)
    tl.store(out + program, program)
    skewed.arrive(counters + program, True)


@triton.jit
def stuck_kernel(counters):
    """Every program waits for the next, in a ring."""
    program = tl.program_id(0)
    skewed.wait_for(counters + (program + 1) % tl.num_programs(0), 1)
    skewed.arrive(counters + program, True)


def test_programs_wait_for_later_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "GridExecutor", together(monkeypatch, seed=0))
    out = torch.full((5,), -1, dtype=torch.int32)
    passing_kernel[(5,)](torch.zeros(5, dtype=torch.int32), out)
    assert out.tolist() == [0, 1, 2, 3, 4]


def test_programs_that_wait_for_ever_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "GridExecutor", together(monkeypatch, seed=0))
    with pytest.raises(Exception, match="wait for each other"):
        stuck_kernel[(3,)](torch.zeros(3, dtype=torch.int32))


@pytest.mark.parametrize("lag", [6, 7])
def test_a_window_of_two_items_would_lose_sums(lag: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the means awaited after the next item's end, a program would overwrite sums that others still add."""
    problem = PROBLEMS[0]
    k, v, anchors, _ = problem.tensors()
    sizes = {"tile": Tile(16, 0, 4, 3, 1), "tiles": 3, "reduce": 1}
    planned = forms.one(k, v, anchors, Device("made up", 6, 90), lag=4, **sizes)
    with pytest.raises(ValueError, match="no order that ends"):
        forms.one(k, v, anchors, Device("made up", 6, 90), lag=lag, **sizes)
    clear, launch = planned.launches
    late = replace(planned, launches=(clear, replace(launch, constants={**launch.constants, "LAG": lag})))
    out, _ = shuffled(planned, problem, 0, monkeypatch)
    assert not all(torch.equal(out, shuffled(late, problem, seed, monkeypatch)[0]) for seed in range(6))

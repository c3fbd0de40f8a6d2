"""Values of scripts/anchor_forms/skewed_backward.py beside split's; run by test_skewed_backward.py in its own process.

Split's kernels run under Triton's interpreter, the skewed one's source under gluon_interpreted, errors planted too.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gluon_interpreted import Interpreter, arguments, outcome
from problems import Problem, distance, gradients
from torch import Tensor

from attentions.kernels.anchor import plan, plan_backward, plan_forward
from attentions.kernels.anchor.devices import Device
from attentions.kernels.anchor.plan import WORKSPACE, Plan, kept_places
from attentions.kernels.anchor.tiles import Tile
from attentions.variants.anchor import reference

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))
from anchor_forms import backward_forms, forms, skewed_backward  # pyright: ignore[reportMissingImports]

BF16, FP16 = torch.bfloat16, torch.float16
PROBLEMS = [
    Problem(1, 2, 192, 64, 64, FP16),  # whole items, nothing padded
    Problem(2, 1, 100, 64, 64, BF16, "tokens"),
    Problem(1, 3, 70, 48, 40, FP16),  # ragged in n, m and d
    Problem(1, 1, 1, 64, 64, FP16),
]
APART = {FP16: 0.5, BF16: 4}  # of the dtype's eps: Triton's interpreter cuts float32 to bfloat16, and does not round
# programs at once, tokens a tile, tiles an item, lag, places, kept: those of the device, one round of them and more; a
# last round that is not full; more splits than a reduction takes at once; sums that are waited for at once.
ORDERS = [
    (13, 16, 2, 3, 5, True), (8, 16, 4, 5, 7, False), (7, 16, 4, 6, 10, True), (5, 16, 8, 9, 11, True),
    (13, 16, 1, 1, 3, False), (12, 16, 1, 1, 4, True), (5, 32, 2, 2, 4, True), (6, 16, 2, 3, 6, False),
]  # fmt: skip


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """All workspaces start as NaN."""
    monkeypatch.setattr(
        plan, "allocate", lambda *shape, **keywords: torch.empty_strided(*shape, **keywords).fill_(float("nan"))
    )


def planned(problem: Problem, order: tuple[Any, ...]) -> Plan:
    at_once, tokens, tiles, lag, places, kept = order
    k, v, anchors, g = problem.tensors()
    device, tile = Device("made up", at_once, 90), Tile(tokens, 0, 8, 1, 1)
    cut = {"tiles": tiles, "lag": lag, "places": places, "kept": kept}
    return backward_forms.one(g, k, v, anchors, device, tile=tile, **cut)


def split(problem: Problem) -> tuple[Plan, Tensor]:
    """Split's plan, in two splits and chunks, and what its forward pass keeps."""
    k, v, anchors, g = problem.tensors()
    device = Device("made up", 8, 90)
    kept = torch.full((kept_places(problem.b * problem.h, problem.m, problem.d)[2],), float("nan"))
    forward = forms.split(k, v, anchors, device)
    forward.run(dict(zip(plan_forward.TENSORS, (k, v, anchors, plan.output_like(k), kept), strict=True)))
    choice = replace(backward_forms.split(g, k, v, anchors, device).choice, splits=2, chunks=2)
    return plan_backward.backward(g, k, v, anchors, device=device, choice=choice), kept


def run(found: Plan, problem: Problem, kept: Tensor, **how: Any) -> list[Tensor]:
    """dK, dV and dU, in memory that held NaN."""
    k, v, anchors, g = problem.tensors()
    filled = [plan.output_like(k), plan.output_like(v), torch.empty_like(anchors)]
    for each in filled:
        each.fill_(float("nan"))
    workspace = torch.full((found.workspace_bytes // 4,), float("nan"))
    given = (g, k, v, anchors, kept, *filled, workspace)
    tensors = dict(zip((*plan_backward.TENSORS, WORKSPACE), given, strict=True))
    for launch in found.launches:
        if launch.kernel is skewed_backward.skewed_backward_kernel:
            Interpreter(launch.kernel, **how).run(launch.programs, arguments(launch, tensors))
        else:
            launch.run(tensors)
    return filled


CASES = [(PROBLEMS[0], order) for order in ORDERS] + [(other, order) for other in PROBLEMS[1:] for order in ORDERS[:3]]


@pytest.mark.parametrize(("problem", "order"), CASES, ids=str)
def test_the_skewed_backward_pass_gives_splits_values_and_the_same_bits_in_any_order_of_programs(
    problem: Problem, order: tuple[Any, ...]
) -> None:
    splits_plan, kept = split(problem)
    found, again = (run(planned(problem, order), problem, kept, seed=seed) for seed in (0, 1))
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))
    right = run(splits_plan, problem, kept)
    k, v, anchors, g = problem.tensors()
    exact = gradients(reference, k.double(), v.double(), anchors.double(), g.double())
    own = gradients(reference, k, v, anchors, g)
    for name, one, other in zip(("k", "v", "anchors"), found, right, strict=True):
        assert distance(one, other.double(), g) < APART[k.dtype] * torch.finfo(k.dtype).eps, name
        limit = 8 * max(distance(own[name], exact[name], g), torch.finfo(k.dtype).eps)
        assert distance(one, exact[name], g) <= limit, name


# What is written in place of what, lines with | between, and what comes of it.
HANGS: dict[str, tuple[str, str]] = {
    "places are waited for in another phase": ("emptied.index(place), lap ^ 1", "emptied.index(place), lap"),
    "tiles are waited for in another phase": ("loaded.index(place), lap)", "loaded.index(place), lap ^ 1)"),
    "V is waited for in another phase": ("old_loaded.index(0), old & 1", "old_loaded.index(0), (old & 1) ^ 1"),
    "no place is given back": ("mbarrier.arrive(emptied.index((old - 1) % PLACES))", "pass"),
    "no place of V is given back": ("mbarrier.arrive(old_emptied.index(0))", "pass"),
    "no place of G is given back": ("mbarrier.arrive(spent.index(of_g))", "pass"),
    "no sums are told of": ("mbarrier.arrive(summed.index(0))", "pass"),
    "no others' sums are told of": ("arrive(gathered + head)", "pass"),
    "no reductions are told of": ("arrive(reduced + head)", "pass"),
    "no gradients are told of": ("mbarrier.arrive(ready.index(0))", "pass"),
    "fewer bytes come than are expected": (
        "expect(loaded.index(place), 2 * BYTES",
        "expect(loaded.index(place), 3 * BYTES",
    ),
    "one more is waited for": ("wait_for(reduced + head, SLICES)", "wait_for(reduced + head, SLICES + 1)"),
}
WRONG: dict[str, tuple[str, str]] = {
    "sums are waited for in another phase": ("summed.index(0), done & 1", "summed.index(0), (done & 1) ^ 1"),
    "places are not waited for": ("mbarrier.wait(emptied.index(place), lap ^ 1)", "pass"),
    "places of V are not waited for": ("mbarrier.wait(old_emptied.index(0), (old & 1) ^ 1)", "pass"),
    "places of G are not waited for": ("mbarrier.wait(spent.index(of_g), lap ^ 1)", "pass"),
    "one sum is not waited for": ("wait_for(gathered + head, splits)", "wait_for(gathered + head, splits - 1)"),
    "one slice is not waited for": ("reduced + head, SLICES)", "reduced + head, SLICES - 1)"),
    "dK is not waited for": ("tma.store_wait(0) | barrier()", "barrier()"),
    "a tile is taken for another": ("* TILES + step % TILES", "* TILES + 0"),
    "sums are not begun anew": (
        "mbarrier.arrive(summed.index(0)) | total = gl.zeros([BLOCK_M, D_PAD], gl.float32, SUM)",
        "mbarrier.arrive(summed.index(0))",
    ),
    "others' anchors are reduced": ("(item % splits) * ROWS + few", "0 * ROWS + few"),
}
BARRIERS: dict[str, tuple[str, str]] = {
    "A is not fenced": ("fence_async_shared() | barrier() | total =", "barrier() | total ="),
    "A is not joined": ("barrier() | total =", "total ="),
    "a place of G is given back by the first": ("barrier() | if not KEPT:", "if not KEPT:"),
    "gradients are not fenced": ('".cg").to(DTYPE)) | fence_async_shared()', '".cg").to(DTYPE))'),
    "dS is not fenced": ("weight.store(ds) | fence_async_shared()", "weight.store(ds)"),
    "V is given back by the first": ("barrier() | mbarrier.arrive(old_emptied", "mbarrier.arrive(old_emptied"),
    "dK is stored too early": ("barrier() | k_tile.store", "k_tile.store"),
    "dK is not fenced": ("fence_async_shared() | barrier() | batch, head", "barrier() | batch, head"),
    "a place is given back by the first": ("barrier() | mbarrier.arrive(emptied", "mbarrier.arrive(emptied"),
    "sums are told of by the first": ("barrier() | gl.atomic_add", "gl.atomic_add"),
    "mbarriers are not shown": ("fence_async_shared() | barrier() | items", "items"),
}


ROUNDS = Problem(1, 4, 96, 64, 64, FP16)
AGAIN = (3, 16, 2, 3, 5, False)  # a head a round, eight tiles a program, G read again


@pytest.fixture(scope="module")
def right() -> tuple[Tensor, list[Tensor]]:
    """What split keeps, and the gradients without errors."""
    _, kept = split(ROUNDS)
    return kept, run(planned(ROUNDS, AGAIN), ROUNDS, kept, seed=0)


def found_wrong(error: tuple[str, str], seed: int, right: tuple[Tensor, list[Tensor]]) -> str:
    """What a run with this error says."""
    kept, values = right
    return outcome(lambda: run(planned(ROUNDS, AGAIN), ROUNDS, kept, seed=seed, planted=dict([error])), values)


@pytest.mark.parametrize("error", HANGS)
def test_who_waits_for_what_never_comes_is_found(error: str, right: tuple[Tensor, list[Tensor]]) -> None:
    assert found_wrong(HANGS[error], 0, right) == "Deadlock"


@pytest.mark.parametrize("error", WRONG)
def test_who_does_not_wait_gives_other_values_in_some_order(error: str, right: tuple[Tensor, list[Tensor]]) -> None:
    assert any(found_wrong(WRONG[error], seed, right) for seed in range(12))


@pytest.mark.parametrize("error", BARRIERS)
def test_a_barrier_or_a_fence_that_is_missing_is_found(error: str, right: tuple[Tensor, list[Tensor]]) -> None:
    assert found_wrong(BARRIERS[error], 0, right) == "Disorder"


def test_a_lag_of_two_items_would_lose_sums() -> None:
    """Were dM awaited after the next item's end, a program would overwrite sums that others still add."""
    with pytest.raises(ValueError, match="no order that ends"):
        planned(ROUNDS, (3, 16, 2, 4, 6, True))
    _, kept = split(ROUNDS)
    found = planned(ROUNDS, (3, 16, 2, 3, 7, True))
    clear, launch, total = found.launches
    late = replace(found, launches=(clear, replace(launch, constants={**launch.constants, "LAG": 4}), total))
    right = run(found, ROUNDS, kept, seed=0)
    others = (run(late, ROUNDS, kept, seed=seed) for seed in range(12))
    assert not all(torch.equal(one, other) for each in others for one, other in zip(each, right, strict=True))

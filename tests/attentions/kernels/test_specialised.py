"""scripts/anchor_forms/specialised.py: its own source interpreted, errors planted in it, and what becomes of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from driverless import launched
from problems import Problem, distance
from torch import Tensor

from attentions.kernels.anchor import plan, plan_forward
from attentions.kernels.anchor.devices import H100, Device
from attentions.kernels.anchor.plan import WORKSPACE, Plan, kept_places
from attentions.kernels.anchor.tiles import Tile
from attentions.variants.anchor import reference

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton's interpreter has no Gluon", allow_module_level=True)

from gluon_interpreted import Interpreter, arguments, outcome

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))
from anchor_forms import forms  # pyright: ignore[reportMissingImports]

BF16, FP16 = torch.bfloat16, torch.float16
PROBLEMS = [
    Problem(2, 3, 96, 64, 64, FP16),  # whole items, nothing padded
    Problem(2, 2, 100, 64, 64, BF16, "tokens"),
    Problem(1, 3, 190, 48, 40, FP16),  # ragged in n, m and d
    Problem(1, 1, 1, 64, 64, FP16),
]
# Heads at once, tokens a tile, stages, tiles an item, places of A: A of two items; of three, a last round that is not
# full; of one; of four, in one stage; loads far ahead.
ORDERS = [(1, 16, 2, 2, 4), (2, 16, 2, 1, 3), (1, 32, 3, 3, 3), (1, 16, 1, 2, 8), (1, 16, 7, 2, 2)]


def planned(problem: Problem, order: tuple[int, ...]) -> Plan:
    heads, tokens, stages, tiles, places = order
    k, v, anchors, _ = problem.tensors()
    tile, at_once = Tile(tokens, 0, 8, stages, 1), heads * -(-problem.n // (tokens * tiles))
    return forms.roles(k, v, anchors, Device("made up", at_once, 90), tile=tile, tiles=tiles, places=places)


def interpreted(found: Plan, problem: Problem, seed: int, planted: Mapping[str, str] | None = None) -> list[Tensor]:
    """O, and W with δ, in memory that held NaN."""
    k, v, anchors, _ = problem.tensors()
    kept = torch.full((kept_places(problem.b * problem.h, problem.m, problem.d)[2],), float("nan"))
    out = plan.output_like(k).fill_(float("nan"))
    workspace = torch.full((found.workspace_bytes // 4,), float("nan"))
    tensors = dict(zip((*plan_forward.TENSORS, WORKSPACE), (k, v, anchors, out, kept, workspace), strict=True))
    for launch in found.launches:
        of_this = planted if launch is found.launches[-1] else None
        Interpreter(launch.kernel, seed=seed, planted=of_this).run(launch.programs, arguments(launch, tensors))
    return [out, kept]


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_the_source_gives_the_definitions_values_and_the_same_bits_in_any_order(
    problem: Problem, order: tuple[int, ...]
) -> None:
    found = planned(problem, order)
    (out, kept), again = (interpreted(found, problem, seed) for seed in (0, 1))
    assert torch.equal(out, again[0])
    assert torch.equal(kept, again[1])
    k, v, anchors, _ = problem.tensors()
    exact = reference(k.double(), v.double(), anchors.double())
    own = distance(reference(k, v, anchors), exact)
    assert distance(out, exact) <= 8 * max(own, torch.finfo(k.dtype).eps)
    a = torch.softmax(k.double() @ anchors.to(k.dtype).double().mT / k.shape[-1] ** 0.5, -1)
    means = (a.mT @ v.double()) / a.sum(-2)[..., None]
    at = problem.b * problem.h * problem.m * problem.d
    assert distance(kept[:at], means.flatten()) <= 8 * torch.finfo(k.dtype).eps
    assert distance(kept[at:], a.sum(-2).flatten()) <= 2 * torch.finfo(k.dtype).eps


def test_a_plan_runs_through_tritons_own_launcher_all_programs_together() -> None:
    problem = Problem(2, 3, 600, 64, 64, BF16)
    k, v, anchors, _ = problem.tensors()
    found = forms.FORMS["specialised"](k, v, anchors, H100)
    given = (k, v, anchors, plan.output_like(k), torch.empty(kept_places(6, 64, 64)[2]))
    programs, (clear, roles), scratch = launched(found, dict(zip(plan_forward.TENSORS, given, strict=True)))
    assert programs == [launch.programs for launch in found.launches]
    assert (clear.launch_cooperative_grid, roles.launch_cooperative_grid) == (False, True)
    assert roles.num_warps == 16
    assert scratch == [3 * 128 * found.launches[1].programs], "three tensor maps a program"


# What is written in place of what, lines with | between, and what comes of it.
HANGS: dict[str, tuple[str, str]] = {
    "stages are waited for in another phase": ("emptied.index(stage), phase ^ 1", "emptied.index(stage), phase"),
    "tiles are waited for in another phase": ("loaded.index(stage), phase)", "loaded.index(stage), phase ^ 1)"),
    "places are waited for in another phase": ("scattered.index(place), lap ^ 1", "scattered.index(place), lap"),
    "no stage is given back": ("mbarrier.arrive(emptied.index(stage))", "pass"),
    "no place is given back": ("mbarrier.arrive(scattered.index(place))", "pass"),
    "no sums are told of": ("arrive(gathered + item // SPLITS)", "pass"),
    "no means are told of": ("arrive(reduced + head)", "pass"),
    "fewer bytes come than are expected": ("2 * BLOCK_N * D_PAD * 2", "3 * BLOCK_N * D_PAD * 2"),
    "one more is waited for": ("wait_for(reduced + head, SLICES)", "wait_for(reduced + head, SLICES + 1)"),
}
WRONG: dict[str, tuple[str, str]] = {
    "stages are not waited for": ("mbarrier.wait(emptied.index(stage), phase ^ 1)", "pass"),
    "places are not waited for": ("mbarrier.wait(scattered.index(place), lap ^ 1)", "pass"),
    "one sum is not waited for": ("wait_for(gathered + head, SPLITS)", "wait_for(gathered + head, SPLITS - 1)"),
    "one slice is not waited for": ("wait_for(reduced + head, SLICES)", "wait_for(reduced + head, SLICES - 1)"),
    "O is not waited for": ("tma.store_wait(0)", "tma.store_wait(9)"),
    "a place of sums too few": ("(item // programs) % SUMS", "0"),
    "more bytes come than are expected": ("2 * BLOCK_N * D_PAD * 2", "BLOCK_N * D_PAD * 2"),
    "a tile is taken for another": ("+ tile) * BLOCK_N", "+ 0) * BLOCK_N"),
}
BARRIERS: dict[str, tuple[str, str]] = {
    "A is not fenced": ("fence_async_shared() | barrier() | at =", "barrier() | at ="),
    "A is not joined": ("barrier() | at =", "at ="),
    "a stage is given back by the first": ("barrier() | mbarrier.arrive(emptied", "mbarrier.arrive(emptied"),
    "a place is given back by the first": ("barrier() | mbarrier.arrive(scattered", "mbarrier.arrive(scattered"),
    "O is stored too early": ("barrier() | kept.reshape", "kept.reshape"),
    "O is not fenced": ("fence_async_shared() | barrier() | store_async", "barrier() | store_async"),
    "the means are not fenced": ("fence_async_shared() | barrier() | for tile", "barrier() | for tile"),
    "sums are told of by the first": ("barrier() | gl.atomic_add", "gl.atomic_add"),
    "mbarriers are not shown": ("fence_async_shared() | barrier() | gl.warp_specialize", "gl.warp_specialize"),
}
SEEDS = range(12)


def found_wrong(error: tuple[str, str], seed: int) -> str:
    """What a run of the first problem with this error says."""
    problem = PROBLEMS[0]
    found = planned(problem, ORDERS[0])
    right = interpreted(found, problem, 0)
    return outcome(lambda: interpreted(found, problem, seed, dict([error])), right)


@pytest.mark.parametrize("error", HANGS)
def test_who_waits_for_what_never_comes_is_found_in_every_order(error: str) -> None:
    assert {found_wrong(HANGS[error], seed) for seed in SEEDS[:3]} == {"Deadlock"}


@pytest.mark.parametrize("error", WRONG)
def test_who_does_not_wait_gives_other_values_in_some_order(error: str) -> None:
    assert any(found_wrong(WRONG[error], seed) for seed in SEEDS)


@pytest.mark.parametrize("error", BARRIERS)
def test_a_barrier_or_a_fence_that_is_missing_is_found(error: str) -> None:
    assert found_wrong(BARRIERS[error], 0) == "Disorder"

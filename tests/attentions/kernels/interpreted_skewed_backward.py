"""Values of scripts/anchor_forms/skewed_backward.py beside split's; run by test_skewed_backward.py in a process of its own.

Split's kernels run under Triton's interpreter, the skewed one's source under gluon_interpreted, errors planted in it too.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gluon_interpreted import Deadlock, Interpreter
from gluon_language import Disorder, Pointer
from problems import Problem, distance, gradients
from torch import Tensor
from triton.language import constexpr

from attentions.kernels.anchor import plan, plan_backward, plan_forward
from attentions.kernels.anchor.devices import Device
from attentions.kernels.anchor.plan import WORKSPACE, Launch, Memory, Plan, kept_places
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
APART = {FP16: 2, BF16: 4}  # of the dtype's eps: Triton's interpreter cuts float32 to bfloat16, and does not round
# programs at once, tokens a tile, tiles an item, lag, reduce, kept: those of the device, one round of them and more; a
# last round that is not full; more splits than a reduction takes at once; sums reduced in the step that waits for them.
ORDERS = [
    (13, 16, 2, 3, 0, True), (8, 16, 4, 5, 0, False), (7, 16, 3, 5, 1, True), (13, 16, 1, 1, 0, False),
    (12, 16, 1, 1, 0, True), (5, 32, 2, 2, 0, True), (6, 16, 2, 3, 1, False),
]  # fmt: skip


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """All workspaces start as NaN."""
    monkeypatch.setattr(
        plan, "allocate", lambda *shape, **keywords: torch.empty_strided(*shape, **keywords).fill_(float("nan"))
    )


def planned(problem: Problem, order: tuple[Any, ...]) -> Plan:
    at_once, tokens, tiles, lag, reduce, kept = order
    k, v, anchors, g = problem.tensors()
    device, tile = Device("made up", at_once, 90), Tile(tokens, 0, 8, 1, 1)
    return backward_forms.one(g, k, v, anchors, device, tile=tile, tiles=tiles, lag=lag, reduce=reduce, kept=kept)


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


def arguments(launch: Launch, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """As the interpreter of Gluon takes them."""

    def given(value: Any) -> Any:
        if isinstance(value, Memory):
            flat = value.of(tensors)
            size = flat.untyped_storage().nbytes() // flat.itemsize - flat.storage_offset()
            return Pointer(torch.as_strided(flat, (size,), (1,), flat.storage_offset()))
        if isinstance(value, tuple):
            return tuple(map(given, value))
        return value.value if isinstance(value, constexpr) else value

    return {name: given(value) for name, value in (launch.arguments | launch.constants).items()}


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
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

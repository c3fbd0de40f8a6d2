"""Values of gather and scatter apart under Triton's interpreter; run by test_staged.py in a process of its own.

`check` is also what test_staged.py does on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from problems import distance
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import attentions
from attentions.kernels.anchor import plan, plan_staged, staged
from attentions.variants.anchor import reference

# Times the eager reference's own error in the dtype. The kernels round W once more than it does, and the interpreter
# cuts float32 to bfloat16 by truncation, which makes errors of one sign that add up.
AGREEMENT = {torch.float32: 4.0, torch.float16: 4.0, torch.bfloat16: 12.0}
SIZES = [
    (2, 3, 100, 32, 10, torch.float32),  # ragged in n and m
    (1, 2, 96, 64, 64, torch.float16),  # whole tiles, nothing padded
    (2, 1, 70, 80, 33, torch.bfloat16),
    (2, 2, 1, 32, 1, torch.float16),  # one token, one anchor
]
OPTIONS: list[dict[str, Any]] = [
    {"bias": True},
    {"scatter": "separate"},
    {"self": "excluded"},
    {"scatter": "separate", "bias": True, "per_head": True},
    {"self": "excluded", "bias": True, "per_head": True},
    {"self": "excluded", "logits": "cosine", "gate": True},
    {"importance": True},
    {"importance": True, "scatter": "separate", "bias": True, "per_head": True},
    {"importance": True, "self": "excluded", "logits": "cosine"},
]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """All outputs and workspaces start as NaN."""
    monkeypatch.setattr(
        plan, "allocate", lambda *shape, **keywords: torch.empty_strided(*shape, **keywords).fill_(float("nan"))
    )


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Cut every problem into given splits, which the heuristic would do for large ones only."""
    heuristic = plan_staged.default_choice

    def use(splits: int, chunks: int) -> None:
        def choose(kind: Any, **keywords: Any) -> Any:
            return replace(heuristic(kind, **keywords), splits=splits, chunks=chunks)

        monkeypatch.setattr(plan_staged, "default_choice", choose)

    return use


def used(
    name: str, size: tuple[Any, ...], precision: torch.dtype, *, tokens_first: bool = False, device: str = "cpu",
    **options: Any,
) -> dict[str, Tensor]:  # fmt: skip
    """The output and every gradient of a core; parameters and inputs are rounded to the size's dtype first."""
    b, h, n, d, m, dtype = size
    torch.manual_seed(0)
    core = attentions.build(name, heads=h, head_dim=d, tokens=n, anchors=m, **options)
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.mul_(0.5).add_(0.2 * torch.randn(parameter.shape, generator=source))
    core = core.to(device, dtype).to(precision)

    def draw() -> Tensor:
        drawn = torch.randn(b, h, n, d, generator=source).to(device, dtype).to(precision)
        return drawn.transpose(1, 2).contiguous().transpose(1, 2) if tokens_first else drawn

    k, v, g = draw().requires_grad_(), draw().requires_grad_(), draw()
    out = core(k, k, v)
    assert out.dtype == precision
    wanted = {"k": k, "v": v, **dict(core.named_parameters())}
    grads = torch.autograd.grad(out, list(wanted.values()), g)
    return {"out": out.detach(), "g": g, **dict(zip(wanted, grads, strict=True))}


def check(name: str, size: tuple[Any, ...], agreement: Mapping[torch.dtype, float] = AGREEMENT, **options: Any) -> None:
    dtype, variant = size[-1], attentions.split(name)[0]
    found = used(name, size, dtype, **options)
    plain, exact = (used(f"{variant}:reference", size, x, **options) for x in (dtype, torch.float64))
    for what, right in exact.items():
        assert found[what].shape == right.shape
        allowed = agreement[dtype] * max(distance(plain[what], right, exact["g"]), torch.finfo(dtype).eps)
        assert distance(found[what], right, exact["g"]) <= allowed, what


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_anchor_agrees_with_float64(size: tuple[Any, ...], options: dict[str, Any]) -> None:
    check("anchor:triton", size, **options)


@pytest.mark.parametrize("size", SIZES[:3], ids=str)
@pytest.mark.parametrize("options", [{}, {"mixing": False}], ids=str)
def test_transolver_agrees_with_float64(size: tuple[Any, ...], options: dict[str, Any]) -> None:
    check("transolver:triton", size, **options)


@pytest.mark.parametrize(("splits", "chunks"), [(2, 3), (5, 2)])
def test_splits_and_other_layouts_agree_with_float64(cut: Any, splits: int, chunks: int) -> None:
    cut(splits, chunks)
    size = (2, 2, 650, 32, 20, torch.float16)
    check("anchor:triton", size, tokens_first=True, bias=True, scatter="separate", per_head=True)
    check("anchor:triton", size, tokens_first=True, self="excluded", bias=True)
    check("anchor:triton", size, tokens_first=True, importance=True)


def test_without_options_it_is_the_fused_attention() -> None:
    """One function by two ways: anchors on the way back that are the gather's."""
    torch.manual_seed(0)
    k, v, anchors = torch.randn(1, 2, 100, 32), torch.randn(1, 2, 100, 32), torch.randn(10, 32)
    core = attentions.build("anchor:triton", heads=2, head_dim=32, tokens=100, anchors=10)
    with torch.no_grad():
        core.anchors.copy_(anchors)
        torch.testing.assert_close(staged.attend(k, v, anchors), core(k, k, v), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(staged.attend(k, v, anchors, anchors), core(k, k, v), rtol=1e-5, atol=1e-6)


def test_an_anchor_of_zero_degree_contributes_zero() -> None:
    torch.manual_seed(0)
    k, v = (torch.randn(1, 2, 40, 32).abs().requires_grad_() for _ in range(2))
    anchors = torch.randn(6, 32)
    anchors[0] = -1e4
    out = staged.attend(k, v, anchors, bias=torch.zeros(6))
    torch.testing.assert_close(out, staged.attend(k, v, anchors[1:], bias=torch.zeros(5)), rtol=1e-5, atol=1e-6)
    out.sum().backward()
    assert k.grad is not None
    assert torch.isfinite(k.grad).all()


def test_an_anchor_of_zero_or_almost_zero_degree_is_as_in_the_reference() -> None:
    """Read by other anchors on the way back, too; its gradients are those of the reference, and finite."""
    torch.manual_seed(0)
    k, v, g = (torch.randn(1, 2, 40, 32) for _ in range(3))
    k[..., 0] = 32**0.5
    other, excluded = torch.randn(6, 32), {"excluded": True}
    for gap, back, words in ((1e4, None, {}), (1e4, other, {}), (50.0, other, {}), (50.0, None, excluded)):
        anchors = torch.randn(6, 32)
        anchors[0] = 0
        anchors[0, 0] = -gap
        leaves = [x.clone().requires_grad_() for x in (k, v, anchors, *([] if back is None else [back]))]
        both = []
        for compute in (staged.attend, reference):
            out = compute(*leaves, **words)
            both.append([out.detach(), *torch.autograd.grad(out, leaves, g)])
        for found, right in zip(*both, strict=True):
            torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)
        assert gap < 1e4 or (both[0][3][0] == 0).all()


@pytest.mark.parametrize(
    "options", [{}, {"per_head": True}, {"bias": True}, {"self": "excluded"}, {"importance": True}], ids=str
)
def test_an_empty_batch_is_an_empty_result(options: dict[str, Any]) -> None:
    core = attentions.build("anchor:split" if "per_head" in options else "anchor:triton", heads=2, head_dim=32,
                            tokens=2000, anchors=5, **options)  # fmt: skip
    k = torch.zeros(0, 2, 2000, 32, requires_grad=True)
    out = core(k, k, k)
    out.sum().backward()
    assert out.shape == k.shape
    assert all(not p.grad.any() for p in core.parameters() if p.grad is not None)


def test_operators_are_registered_correctly() -> None:
    """PyTorch's own checks: schema, gradient registration, fake tensors, ahead-of-time dispatch."""
    torch.manual_seed(0)
    k, v = (torch.randn(1, 2, 20, 32).requires_grad_() for _ in range(2))
    anchors, means = torch.randn(5, 32).requires_grad_(), torch.randn(1, 2, 5, 32).requires_grad_()
    offsets, none = torch.randn(5).requires_grad_(), torch.empty(0)
    inverse = torch.rand(1, 2, 5).requires_grad_()
    times = torch.rand(1, 2, 20).requires_grad_()
    for offset, g in ((offsets, none), (none, times), (offsets, times)):
        torch.library.opcheck(torch.ops.attentions.anchor_gather.default, (k, v, anchors, offset, g, "ieee"))
    for offset in (offsets, none):
        for r in (inverse, none):
            torch.library.opcheck(
                torch.ops.attentions.anchor_scatter.default, (k, means, r, anchors, offset, "ieee")
            )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("anchor", {"bias": True}),
        ("anchor", {"self": "excluded"}),
        ("anchor", {"importance": True}),
        ("transolver", {}),
    ],
    ids=str,
)
def test_flops_are_counted(name: str, options: dict[str, Any]) -> None:
    core = attentions.build(f"{name}:triton", heads=2, head_dim=32, tokens=20, anchors=5, **options)
    k, v = (torch.randn(1, 2, 20, 32).requires_grad_() for _ in range(2))
    spec = attentions.spec(name)
    with FlopCounterMode(display=False) as counter:
        out = core(k, k, v)
    assert counter.get_total_flops() == spec.cost(1, 2, 20, 32, 5, "forward", backend="triton", **options).flops
    with FlopCounterMode(display=False) as counter:
        out.sum().backward()
    assert counter.get_total_flops() == spec.cost(1, 2, 20, 32, 5, "backward", backend="triton", **options).flops


def test_a_graph_holds_both_operators() -> None:
    torch.compiler.reset()
    core = attentions.build("anchor:triton", heads=2, head_dim=32, tokens=20, anchors=5, bias=True)
    k, v = (torch.randn(1, 2, 20, 32).requires_grad_() for _ in range(2))
    compiled = torch.compile(core, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(k, k, v), core(k, k, v))


def test_autocast_casts_tokens() -> None:
    core = attentions.build("anchor:triton", heads=2, head_dim=32, tokens=20, anchors=5, self="excluded")
    k, v = (torch.randn(1, 2, 20, 32).requires_grad_() for _ in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = core(k, k, v)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), core(k, k, v), rtol=0.05, atol=0.05)


def test_wrong_requests_say_what_is_valid() -> None:
    k, v = torch.randn(1, 2, 20, 32), torch.randn(1, 2, 20, 32)
    with pytest.raises(ValueError, match="self=excluded with the gather's anchors alone"):
        staged.attend(k, v, torch.randn(5, 32), torch.randn(5, 32), excluded=True)
    with pytest.raises(ValueError, match=r"anchors \(m, d\) or \(h, m, d\)"):
        staged.attend(k, v, torch.randn(3, 5, 32))
    with pytest.raises(ValueError, match="m × d that one tile holds"):
        staged.attend(k, v, torch.randn(300, 32))
    work = attentions.Work(b=1, h=2, n=20, d=32, m=5, options={"scatter": "separate", "self": "excluded"})
    reason = attentions.why_unavailable("anchor:triton", device="cpu", dtype=torch.float32, work=work)
    assert reason == "does not take scatter=separate and self=excluded together; anchor:reference does"
    assert math.isfinite(staged.attend(k, v, torch.randn(5, 32)).sum().item())

"""Flash attention: the online softmax, the choice of kernels, and what each says when it cannot run."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import attentions
from attentions import fused, shipped
from attentions.variants import flash

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("block", [1, 3, 7, 8, 256])
def test_blocks_do_not_matter(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (torch.randn(2, 2, 7, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    upstream = torch.randn_like(q)
    expected = torch.softmax(q @ k.transpose(-2, -1) / 3**0.5, dim=-1) @ v
    gradients = torch.autograd.grad(expected, (q, k, v), upstream)
    monkeypatch.setattr(flash, "BLOCK", block)
    out = flash.reference(q, k, v)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.autograd.grad(out, (q, k, v), upstream), gradients)


def test_gradcheck_over_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash, "BLOCK", 2)
    q, k, v = (torch.randn(1, 1, 5, 2, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(flash.reference, (q, k, v))


def test_large_scores_do_not_overflow() -> None:
    q, k, v = (torch.randn(1, 1, 300, 8) for _ in range(3))
    out = flash.reference(1e6 * q, k, v)
    nearest = v[:, :, (q @ k.transpose(-2, -1))[0, 0].argmax(dim=-1)]
    torch.testing.assert_close(out, nearest)


def test_never_forms_n_by_n(measure_peak: Any) -> None:
    b, h, n, d = 1, 1, 2048, 16
    q, k, v = (torch.randn(b, h, n, d, requires_grad=True) for _ in range(3))
    flash.reference(q, k, v).sum().backward()
    q.grad = k.grad = v.grad = None
    assert measure_peak(lambda: flash.reference(q, k, v).sum().backward()) < n * n * 4


def test_a_cpu_takes_pytorchs_kernel() -> None:
    work = attentions.Work(b=1, h=1, n=64, d=64)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        assert attentions.resolve("flash", device="cpu", dtype=dtype, work=work).name == "torch"


@pytest.mark.parametrize(
    ("capability", "first", "last"),
    [
        ((7, 5), "fa2", "cudnn"),
        ((8, 0), "fa2", "cudnn"),
        ((9, 0), "fa3", "torch"),
        ((10, 0), "fa4", "torch"),
        ((12, 0), "fa4", "torch"),
    ],
)
def test_rank_by_generation(capability: Any, first: str, last: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    order = flash.rank(attentions.Work(b=1, h=1, n=8, d=8), torch.bfloat16, CUDA)
    assert (order[0], order[-1]) == (first, last)
    automatic = {backend.name for backend in flash.SPEC.backends if backend.automatic}
    assert set(order) <= automatic
    assert "torch" in order


@pytest.mark.parametrize("name", ["torch", "cudnn", "fa2", "fa3", "fa4"])
def test_gpu_limits(name: str) -> None:
    limits = flash.SPEC.backend(name).limits
    good = attentions.Work(b=1, h=1, n=64, d=64)
    assert limits(good, torch.bfloat16, CUDA) is None
    assert limits(good, torch.float16, CUDA) is None
    assert limits(good, torch.float32, CUDA) == "computes in float16 or bfloat16 on a GPU, not in float32"
    assert "head_dim" in str(limits(attentions.Work(b=1, h=1, n=64, d=512), torch.bfloat16, CUDA))
    assert "head_dim" in str(limits(attentions.Work(b=1, h=1, n=64, d=20), torch.bfloat16, CUDA))


@pytest.mark.parametrize(("name", "package"), [("fa2", "flash-attn"), ("fa3", "flash-attn-3"), ("fa4", "flash-attn-4")])
def test_a_missing_package_names_itself(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = flash.SPEC.backend(name)
    assert "runs on a CUDA device only" in str(backend.missing(CPU))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    reason = str(backend.missing(CUDA))
    assert reason.startswith(f"needs the package {package}, which is not installed: ")
    assert ("; or the package fa3-fwd (forward only, in bfloat16): pip install" in reason) == (name == "fa3")


class Wheel(torch.autograd.Function):
    """What `fa3_fwd_interface.flash_attn_func` of the wheel fa3-fwd does: a forward pass, in bfloat16."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if q.dtype == torch.float16:
            raise RuntimeError("This flash attention build does not support FP16.")
        return flash.reference(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        raise RuntimeError("This flash attention build does not support backward.")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that these modules are installed, beside a Hopper GPU whose trials run on the CPU."""
    modules: dict[str, Any] = {}
    real = importlib.util.find_spec

    def find(name: str) -> Any:
        return SimpleNamespace(origin=name, submodule_search_locations=None) if name in modules else real(name)

    def install(name: str, flash_attn_func: Callable[..., Any]) -> None:
        modules[name] = SimpleNamespace(flash_attn_func=flash_attn_func)
        monkeypatch.setitem(sys.modules, name, modules[name])

    def on_the_cpu(compute: Any, device: Any, dtype: torch.dtype, *, backward: bool = False) -> str | None:
        return shipped.trial.__wrapped__(compute, CPU, dtype, backward=backward)

    def case_on_the_cpu(compute: Any, work: attentions.Work, dtype: torch.dtype, device: Any) -> str | None:
        return on_the_cpu(compute, device, dtype, backward=work.phase != "forward")

    monkeypatch.setattr(importlib.util, "find_spec", find)
    monkeypatch.setattr(fused, "_functions", {})
    monkeypatch.setattr(fused, "trial", on_the_cpu)
    monkeypatch.setattr(fused, "cannot", case_on_the_cpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    return install


def test_fa3_takes_the_wheel_that_has_a_forward_pass_alone(installed: Callable[..., None]) -> None:
    installed("fa3_fwd_interface", Wheel.apply)
    fa3 = flash.SPEC.backend("fa3")
    forward, train = (attentions.Work(b=1, h=1, n=64, d=64, phase=phase) for phase in ("forward", "train"))
    assert fa3.missing(CUDA) is None
    assert fa3.limits(forward, torch.bfloat16, CUDA) is None
    assert "RuntimeError: This flash attention build does not support backward" in str(
        fa3.limits(train, torch.bfloat16, CUDA)
    )
    assert "does not support FP16" in str(fa3.limits(forward, torch.float16, CUDA))


def test_fa3_takes_the_whole_package_where_both_are_installed(installed: Callable[..., None]) -> None:
    installed("fa3_fwd_interface", Wheel.apply)
    installed(
        "flash_attn_interface", lambda q, k, v: flash.reference(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    )
    train = attentions.Work(b=1, h=1, n=64, d=64, phase="train")
    assert flash.SPEC.backend("fa3").limits(train, torch.float16, CUDA) is None


def test_a_package_that_does_nothing_here_is_missing(installed: Callable[..., None]) -> None:
    def flash_attn_func(q: Any, k: Any, v: Any) -> Any:
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")

    installed("flash_attn", flash_attn_func)
    reason = str(flash.SPEC.backend("fa2").missing(CUDA))
    assert "is installed and fails forward in bfloat16 on cpu: RuntimeError: FlashAttention only supports" in reason


@pytest.mark.parametrize("returns_tuple", [False, True])
def test_packages_are_called_in_their_layout(returns_tuple: bool, installed: Callable[..., None]) -> None:
    shapes = []

    def flash_attn_func(q: Any, k: Any, v: Any) -> Any:
        shapes.append(tuple(q.shape))
        assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
        out = flash.reference(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)
        return (out, None) if returns_tuple else out

    installed("flash_attn", flash_attn_func)
    q, k, v = (torch.randn(2, 3, 5, 8)[..., ::2] for _ in range(3))
    torch.testing.assert_close(fused.packaged(q, k, v, name="fa2"), flash.reference(q, k, v))
    assert shapes == [(2, 5, 3, 4)]


def test_packages_are_asked_for_causal_and_grouped_heads_as_they_take_them(installed: Callable[..., None]) -> None:
    """`causal=True`, given only where it is asked, and fewer heads of keys as they are."""
    given = []

    def flash_attn_func(q: Any, k: Any, v: Any, **keywords: Any) -> Any:
        given.append((k.shape[2], keywords))
        return flash.reference(*(x.transpose(1, 2) for x in (q, k, v)), **keywords).transpose(1, 2)

    installed("flash_attn", flash_attn_func)
    q, (k, v) = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 2, 5, 8)
    for causal in (False, True):
        asked = {"causal": True} if causal else {}
        expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
        torch.testing.assert_close(fused.packaged(q, k, v, name="fa2", **asked), expected)
    assert given == [(2, {}), (2, {"causal": True})]


def test_a_package_is_part_of_one_graph(installed: Callable[..., None]) -> None:
    """Found and imported before, by the trial; torch.compile traces neither."""
    installed("flash_attn", lambda q, k, v: 2 * v)
    q = torch.randn(1, 1, 4, 8)
    call = partial(fused.packaged, name="fa2")
    torch.testing.assert_close(call(q, q, q), 2 * q)
    torch.testing.assert_close(torch.compile(call, backend="eager", fullgraph=True)(q, q, q), 2 * q)


def test_cudnn_is_not_asked_for_what_pytorch_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = flash.SPEC.backend("cudnn").limits

    def reason(n: int, phase: str, version: int) -> str | None:
        monkeypatch.setattr(torch.backends.cudnn, "version", lambda: version)
        return limits(attentions.Work(b=1, h=1, n=n, d=64, phase=phase), torch.bfloat16, CUDA)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(fused, "cannot", lambda *case: None)
    assert reason(1, "forward", 92600) == "takes at least 2 tokens, not 1"
    assert "64 modulo 128" in str(reason(192, "train", 91900))
    assert reason(192, "forward", 91900) is None
    assert reason(128, "train", 91900) is None
    assert reason(192, "train", 92600) is None


def test_an_sdpa_kernel_is_never_replaced() -> None:
    q = torch.randn(1, 1, 8, 8)
    with pytest.raises(RuntimeError, match=r"No (viable|available)"):
        fused.sdpa(q, q, q, kernel="CUDNN_ATTENTION")

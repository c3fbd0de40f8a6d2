"""Flash attention: the online softmax, the choice of kernels, and what each says when it cannot run."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import attentions
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
    monkeypatch.setattr(flash.importlib.util, "find_spec", lambda name: None)
    assert str(backend.missing(CUDA)).startswith(f"needs the package {package}, which is not installed: ")


@pytest.mark.parametrize("returns_tuple", [False, True])
def test_packages_are_called_in_their_layout(returns_tuple: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def flash_attn_func(q: Any, k: Any, v: Any) -> Any:
        shapes.append(tuple(q.shape))
        assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
        out = flash.reference(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)
        return (out, None) if returns_tuple else out

    monkeypatch.setitem(sys.modules, "pretended", SimpleNamespace(flash_attn_func=flash_attn_func))
    q, k, v = (torch.randn(2, 3, 5, 8)[..., ::2] for _ in range(3))
    torch.testing.assert_close(flash.packaged(q, k, v, module="pretended"), flash.reference(q, k, v))
    assert shapes == [(2, 5, 3, 4)]


def test_an_sdpa_kernel_is_never_replaced() -> None:
    q = torch.randn(1, 1, 8, 8)
    with pytest.raises(RuntimeError, match=r"No (viable|available)"):
        flash.sdpa(q, q, q, kernel="CUDNN_ATTENTION")

"""Memory-efficient attention: blocks of queries, and availability found by running."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import attentions
from attentions.variants import xformers

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("block", [1, 3, 7, 256])
def test_blocks_do_not_matter(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (torch.randn(2, 2, 7, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    upstream = torch.randn_like(q)
    expected = torch.softmax(q @ k.transpose(-2, -1) / 3**0.5, dim=-1) @ v
    gradients = torch.autograd.grad(expected, (q, k, v), upstream)
    monkeypatch.setattr(xformers, "BLOCK", block)
    out = xformers.reference(q, k, v)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.autograd.grad(out, (q, k, v), upstream), gradients)


def test_keeps_a_block_of_scores(measure_peak: Any) -> None:
    b, h, n, d = 1, 1, 2048, 16
    q, k, v = (torch.randn(b, h, n, d, requires_grad=True) for _ in range(3))
    xformers.reference(q, k, v).sum().backward()
    q.grad = k.grad = v.grad = None
    assert measure_peak(lambda: xformers.reference(q, k, v).sum().backward()) < n * n * 4


def test_is_unavailable_on_a_cpu_with_its_reason() -> None:
    reason = str(attentions.why_unavailable("xformers", device="cpu"))
    assert "xformers:xformers runs on a CUDA device only" in reason
    assert "pip install 'attention-harness[gpu]'" in reason
    assert "xformers:torch runs on a CUDA device only" in reason
    with pytest.raises(attentions.Unavailable):
        attentions.resolve("xformers", device="cpu", dtype=torch.float32, work=attentions.Work(b=1, h=1, n=8, d=8))


def test_a_missing_package_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xformers.importlib.util, "find_spec", lambda name: None)
    reason = xformers.SPEC.backend("xformers").missing(CUDA)
    assert reason == "needs the package xformers, which is not installed: pip install 'attention-harness[gpu]'"


@pytest.mark.parametrize("name", ["xformers", "torch"])
def test_limits(name: str) -> None:
    limits = xformers.SPEC.backend(name).limits
    assert limits(attentions.Work(b=1, h=1, n=8, d=64), torch.float32, CUDA) is None
    assert limits(attentions.Work(b=1, h=1, n=8, d=64, itemsize=2), torch.bfloat16, CUDA) is None
    assert "not in float64" in str(limits(attentions.Work(b=1, h=1, n=8, d=64, itemsize=8), torch.float64, CUDA))
    assert limits(attentions.Work(b=1, h=1, n=8, d=12), torch.float32, CUDA) is None
    assert limits(attentions.Work(b=1, h=1, n=8, d=12, itemsize=2), torch.float16, CUDA) == (
        "takes a head_dim that is a multiple of 8 in float16, not 12"
    )


def test_the_package_is_called_in_its_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    def attend(q: Any, k: Any, v: Any) -> Any:
        assert q.shape == (2, 5, 3, 4)
        assert q.stride(-1) == 1
        return xformers.reference(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)

    monkeypatch.setattr(xformers, "_operators", lambda: SimpleNamespace(memory_efficient_attention=attend))
    q, k, v = (torch.randn(2, 3, 5, 8)[..., ::2] for _ in range(3))
    torch.testing.assert_close(xformers.package(q, k, v), xformers.reference(q, k, v))


@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("causal", [False, True])
def test_the_package_is_asked_for_masks_and_groups_as_it_takes_them(
    kv_heads: int, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A LowerTriangularMask, and grouped heads as (b, n, g, r, d), keys expanded along r: by stride, not by a copy."""

    class LowerTriangularMask:
        pass

    def attend(q: Any, k: Any, v: Any, attn_bias: Any = None) -> Any:
        assert isinstance(attn_bias, LowerTriangularMask if causal else type(None))
        if kv_heads < 4:
            assert q.shape == k.shape == (2, 5, kv_heads, 4 // kv_heads, 8)
            assert k.stride(3) == v.stride(3) == 0
        flat = [x.flatten(2, -2).transpose(1, 2) for x in (q, k, v)]
        out = torch.nn.functional.scaled_dot_product_attention(*flat, is_causal=causal)
        return out.transpose(1, 2).reshape(q.shape)

    operators = SimpleNamespace(memory_efficient_attention=attend, LowerTriangularMask=LowerTriangularMask)
    monkeypatch.setattr(xformers, "_operators", lambda: operators)
    q, (k, v) = torch.randn(2, 4, 5, 8), torch.randn(2, 2, kv_heads, 5, 8)
    asked = {"causal": True} if causal else {}
    torch.testing.assert_close(xformers.package(q, k, v, **asked), xformers.reference(q, k, v, **asked))


def test_the_kernel_without_grouped_heads_says_so() -> None:
    limits = xformers.SPEC.backend("torch").limits
    work = attentions.Work(b=1, h=4, n=8, d=64, kv_heads=2)
    assert "has no grouped heads" in str(limits(work, torch.float32, CUDA))
    assert xformers.SPEC.backend("xformers").limits(work, torch.float32, CUDA) is None


@pytest.mark.parametrize(("cuda", "loads"), [("13.0", True), ("12.8", False)])
def test_loads_the_runtime_its_wheel_was_built_for(
    cuda: str, loads: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "cuda_runtime" / "lib" / "libcudart.so.12"
    library.parent.mkdir(parents=True)
    library.touch()
    loaded = []
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(
        xformers.importlib.util, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda path, mode: loaded.append(path))
    monkeypatch.setitem(sys.modules, "xformers", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "xformers.ops", SimpleNamespace(here=True))
    xformers._operators.cache_clear()
    assert xformers._operators().here
    xformers._operators.cache_clear()
    assert loaded == ([str(library)] if loads else [])


def test_the_file_does_not_shadow_the_package() -> None:
    assert xformers.__name__ == "attentions.variants.xformers"
    assert sys.modules.get("xformers") is not xformers

"""FlexAttention behind backends: where it says it cannot run, and that it is never left to run eagerly."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import attentions
from attentions import flex

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_limits() -> None:
    assert flex.limits(attentions.Work(b=1, h=1, n=64, d=64), torch.float32, CPU) is None
    assert "no backward pass on a CPU" in str(
        flex.limits(attentions.Work(b=1, h=1, n=64, d=64, phase="train"), torch.float32, CPU)
    )
    assert "not in float64" in str(flex.limits(attentions.Work(b=1, h=1, n=64, d=64), torch.float64, CUDA))
    assert "at least 16 on a GPU, not 8" in str(flex.limits(attentions.Work(b=1, h=1, n=64, d=8), torch.bfloat16, CUDA))


def test_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex.shutil, "which", lambda name: None)
    monkeypatch.setattr(flex.importlib.util, "find_spec", lambda name: None)
    assert "needs a C++ compiler" in str(flex.missing(CPU))
    assert "needs the package triton" in str(flex.missing(CUDA))


@pytest.mark.slow
def test_lifts_dynamos_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._dynamo

    limits, masks = [], []

    def compiled(q: Any, k: Any, v: Any, *, block_mask: Any) -> Any:
        limits.append(torch._dynamo.config.recompile_limit)
        masks.append(block_mask)
        return q

    monkeypatch.setattr(flex, "_compiled", lambda: compiled)
    before = torch._dynamo.config.recompile_limit
    q = torch.randn(1, 1, 8, 8)
    flex.attend(q, q, q)
    flex.attend(q, q, q, block_mask="a mask")
    assert limits[0] > before == torch._dynamo.config.recompile_limit
    assert masks == [None, "a mask"]

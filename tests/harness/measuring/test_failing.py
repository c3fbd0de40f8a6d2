"""How a case fails, and whether its process is fit for the next one."""

from __future__ import annotations

import pytest
import torch

import attentions
from harness.measuring.failing import Footing, classify
from harness.measuring.outputs import WrongResult


@pytest.mark.parametrize(
    ("error", "status", "note"),
    [
        (WrongResult("the output\nis wrong"), "error", "the output is wrong"),
        (attentions.Unavailable("get it"), "unavailable", "get it"),
        (attentions.AttentionError("takes n up to 32"), "unsupported", "takes n up to 32"),
        (MemoryError(), "oom", "MemoryError"),
        (RuntimeError("CUDA out of memory. Tried"), "oom", "CUDA out of memory. Tried"),
        (ValueError("no"), "error", "ValueError: no"),
    ],
)
def test_a_failure_has_a_status_and_a_line(error: Exception, status: str, note: str) -> None:
    assert classify(error) == (status, note)


def test_on_a_cpu_only_a_lack_of_memory_ends_the_process() -> None:
    footing = Footing("cpu")
    assert [footing.holds(status) for status in ("error", "unsupported", "oom")] == [True, True, False]


@pytest.mark.parametrize(
    ("held_after", "fault", "holds"),
    [
        (1000, None, True),
        (900, None, True),
        (1000 + 256, None, True),
        (1000 + 257, None, False),
        (1000, RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_on_cuda_the_context_must_compute_and_the_memory_be_back(
    held_after: int, fault: Exception | None, holds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = iter([1000, held_after])
    ones = torch.ones

    def synchronize(device: str) -> None:
        if fault:
            raise fault

    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: next(held))
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 256 * 256))
    monkeypatch.setattr(torch, "ones", lambda size, device: ones(size))
    assert Footing("cuda:0").holds("error") is holds

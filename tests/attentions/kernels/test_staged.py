"""Gather and scatter as operators of their own: values under the interpreter, resources ahead of time."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from interpreted_staged import AGREEMENT, OPTIONS, SIZES, check

from attentions.kernels.anchor import devices
from attentions.kernels.anchor.plan import Launch
from attentions.kernels.anchor.plan_staged import limits, plan_gather, plan_gradients, plan_scatter

ahead = pytest.importorskip("attentions.kernels.ahead", reason="needs Triton with its compiler for NVIDIA GPUs")
not_interpreted = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels are interpreted here")

GENERATIONS = {80: devices.A100, 90: devices.H100}
BF16, FP32 = torch.bfloat16, torch.float32


@not_interpreted
def test_values_under_the_interpreter_begin(interpreted: Callable[[], None]) -> None:
    """The last test here waits for them."""


def launches(n: int, d: int, m: int, dtype: torch.dtype, device: devices.Device) -> list[Launch]:
    """Of every stage with all that it can do, for anchors of each head."""
    k = torch.empty(8, 12, n, d, dtype=dtype, device="meta")
    anchors = torch.empty(12, m, d, device="meta")
    plans = [
        plan_gather(k, k, anchors, biased=True, counted=True, degree=True, phase="forward", device=device)[0],
        plan_gather(k, k, anchors, biased=True, degree=False, phase="backward", device=device)[0],
        plan_scatter(k, anchors, out=FP32, biased=True, share=True, device=device),
        plan_gradients(k, k, anchors, biased=True, counted=True, gathered=True, share=False, device=device)[0],
        plan_gradients(k, k, anchors, biased=True, gathered=False, share=True, device=device)[0],
    ]
    return [launch for plan in plans for launch in plan.launches]


@not_interpreted
@pytest.mark.parametrize("capability", GENERATIONS)
@pytest.mark.parametrize(
    "shape", [(16384, 64, 64, BF16), (1000, 80, 30, BF16), (1000, 32, 120, BF16), (4096, 64, 32, FP32)], ids=str
)
def test_compiles_without_spills_and_inside_shared_memory(shape: Any, capability: int) -> None:
    for launch in launches(*shape, GENERATIONS[capability]):
        found = ahead.compile_launch(launch, capability=capability)
        assert found.spilled_bytes == 0, found
        assert found.shared_bytes <= ahead.SHARED_LIMIT[capability], found
        assert found.resident >= 1, found


def test_what_the_stages_take() -> None:
    def said(d: int, m: int, dtype: torch.dtype) -> str:
        return limits(n=100, d=d, m=m, dtype=dtype) or ""

    assert said(64, 64, BF16) == said(64, 32, FP32) == said(80, 30, BF16) == ""
    assert "head_dim that is a multiple of 16, not 40" in said(40, 30, BF16)
    assert "m × d that one tile holds, not m=64 d=64 in float32" in said(64, 64, FP32)
    assert "m=512 d=128 in bfloat16; anchor:reference takes any" in said(128, 512, BF16)
    assert "takes float16, bfloat16 and float32, not float64" in said(64, 64, torch.float64)


ON_DEVICE = [*SIZES, (4, 12, 4096, 64, 64, BF16), (1, 3, 20_001, 64, 30, torch.float16)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("size", ON_DEVICE, ids=str)
def test_options_agree_with_float64_on_a_device(size: Any, options: dict[str, Any]) -> None:
    check("anchor:triton", size, dict.fromkeys(AGREEMENT, 4.0), device="cuda", **options)


@not_interpreted
def test_values_under_the_interpreter_agree(interpreted: Callable[[], None]) -> None:
    interpreted()

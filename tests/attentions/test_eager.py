"""The pieces that eager variants share."""

from __future__ import annotations

import pytest
import torch

from attentions.eager import softmax

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("j", [1, 30, 64, 513, 20000])
def test_softmax_in_16_bits_is_float32s_rounded_once(device: str, dtype: torch.dtype, j: int) -> None:
    """What lets the variants leave the conversions out: no sum or exponential of it is rounded to 16 bits."""
    torch.manual_seed(0)
    scores = (4 * torch.randn(3, 50, j)).to(device, dtype)
    weights, wide = softmax(scores), torch.softmax(scores, dim=-1, dtype=torch.float32)
    assert weights.dtype == dtype
    ulp = torch.finfo(dtype).eps
    smallest = torch.finfo(dtype).tiny
    # half an ulp of rounding, and a float32 result that two orders of summation round to either side
    torch.testing.assert_close(weights.float(), wide, rtol=0.51 * ulp, atol=smallest * ulp)


def test_softmax_keeps_its_dtype_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert softmax(torch.zeros(2, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16
        assert softmax(torch.zeros(2, 3)).dtype == torch.float32

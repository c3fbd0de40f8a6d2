"""Spatial reduction: the map of R tokens to one, uneven lengths, and the length it is built for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import attentions


def inputs(n: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.randn(2, 3, n, 8, dtype=torch.float64) for _ in range(3))


def build(n: int, m: int) -> Any:
    torch.manual_seed(0)
    return attentions.build("pvt", heads=3, head_dim=8, tokens=n, anchors=m).double()


@pytest.mark.parametrize(("n", "m", "ratio", "left"), [(12, 4, 3, 4), (14, 4, 4, 4), (197, 30, 7, 29), (10, 16, 1, 10)])
def test_is_the_strided_convolution_and_norm(n: int, m: int, ratio: int, left: int) -> None:
    core = build(n, m)
    q, k, v = inputs(n)

    def reduce(x: torch.Tensor) -> torch.Tensor:
        padded = nn.functional.pad(x, (0, 0, 0, left * ratio - n)).flatten(0, 1).transpose(1, 2)
        kernel = core.reduction.weight.unflatten(1, (ratio, 8)).transpose(1, 2)  # (out, in, tap), as PVT's Conv2d
        mapped = nn.functional.conv1d(padded, kernel, core.reduction.bias, stride=ratio)
        return core.norm(mapped.transpose(1, 2)).unflatten(0, (2, 3))

    keys, values = reduce(k), reduce(v)
    assert keys.shape[-2] == left <= m
    expected = torch.softmax(q @ keys.transpose(-2, -1) / 8**0.5, dim=-1) @ values
    torch.testing.assert_close(core(q, k, v), expected)


def test_a_map_that_takes_each_token_is_full_attention_of_normalised_tokens() -> None:
    core = build(9, 9)
    with torch.no_grad():
        core.reduction.weight.copy_(torch.eye(8))
        core.reduction.bias.zero_()
    q, k, v = inputs(9)
    full = attentions.build("full", heads=3, head_dim=8, tokens=9)
    torch.testing.assert_close(core(q, k, v), full(q, core.norm(k), core.norm(v)))


def test_a_shorter_input_gives_fewer_keys() -> None:
    core = build(12, 4)
    q, k, v = inputs(7)
    pad = [nn.functional.pad(x, (0, 0, 0, 2)) for x in (q, k, v)]
    torch.testing.assert_close(core(q, k, v), core(*pad)[:, :, :7])  # 9 tokens: the same three keys


def test_a_longer_input_names_both_lengths() -> None:
    with pytest.raises(attentions.AttentionError, match=r"13 tokens .* at most 12; build it with tokens=13"):
        build(12, 4)(*inputs(13))


def test_parameters_are_shared_by_heads_keys_and_values() -> None:
    assert {name: tuple(p.shape) for name, p in build(12, 4).named_parameters()} == {
        "reduction.weight": (8, 24), "reduction.bias": (8,), "norm.weight": (8,), "norm.bias": (8,),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("n", "m", "note"), [(4096, 64, ""), (197, 30, "7 tokens a key: 29 keys"), (10, 4, "3 tokens a key: 4 keys")]
)
def test_a_row_says_how_many_keys_are_left(n: int, m: int, note: str) -> None:
    found = attentions.spec("pvt").note(attentions.Work(b=1, h=1, n=n, d=8, m=m))
    assert found == ("" if n == 10 else note)


def test_reads_parameters_in_the_inputs_precision() -> None:
    q, k, v = (x.bfloat16() for x in inputs(12))
    assert attentions.build("pvt", heads=3, head_dim=8, tokens=12, anchors=4)(q, k, v).dtype == torch.bfloat16

"""Agent attention: its two stages, its agents, and the note where every query is one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import attentions


def inputs(n: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.randn(2, 3, n, 8, dtype=torch.float64) for _ in range(3))


def build(n: int, m: int) -> Any:
    return attentions.build("agent", heads=3, head_dim=8, tokens=n, anchors=m)


@pytest.mark.parametrize(("n", "lengths"), [(12, [3, 3, 3, 3]), (14, [3, 3, 4, 4]), (5, [1, 1, 1, 2]), (4, [1] * 4)])
def test_is_the_formula(n: int, lengths: list[int]) -> None:
    q, k, v = inputs(n)
    agents = torch.stack([part.mean(dim=-2) for part in q.split(lengths, dim=-2)], dim=-2)
    gathered = torch.softmax(agents @ k.transpose(-2, -1) / 8**0.5, dim=-1) @ v
    expected = torch.softmax(q @ agents.transpose(-2, -1) / 8**0.5, dim=-1) @ gathered
    torch.testing.assert_close(build(n, 4)(q, k, v), expected)


def test_one_agent_gives_every_token_the_same() -> None:
    q, k, v = inputs(9)
    out = build(9, 1)(q, k, v)
    torch.testing.assert_close(out, out[:, :, :1].expand_as(out))
    weights = torch.softmax(q.mean(dim=-2, keepdim=True) @ k.transpose(-2, -1) / 8**0.5, dim=-1)
    torch.testing.assert_close(out[:, :, :1], weights @ v)


def test_weights_sum_to_one() -> None:
    q, k, v = inputs(10)
    torch.testing.assert_close(build(10, 4)(q, k, torch.ones_like(v)), torch.ones_like(v))


@pytest.mark.parametrize("m", [6, 7, 50])
def test_as_many_agents_as_tokens_are_the_queries_and_say_so(m: int) -> None:
    q, k, v = inputs(6)
    inner = torch.softmax(q @ k.transpose(-2, -1) / 8**0.5, dim=-1) @ v
    torch.testing.assert_close(build(6, m)(q, k, v), torch.softmax(q @ q.transpose(-2, -1) / 8**0.5, dim=-1) @ inner)
    definition = attentions.spec("agent")
    note = definition.note(attentions.Work(b=1, h=1, n=6, d=8, m=m))
    assert note == f"every query is its own agent: {m} agents are not fewer than 6 tokens"
    assert definition.cost(1, 1, 6, 8, m) == definition.cost(1, 1, 6, 8, 6)


def test_fewer_agents_say_nothing() -> None:
    assert attentions.spec("agent").note(attentions.Work(b=1, h=1, n=6, d=8, m=5)) == ""


def test_no_parameters() -> None:
    assert not build(9, 3).state_dict()

"""Scores divided by d instead of √d."""

import torch

from attentions import Backend, Cost, Spec, Work, matmuls, traffic


def compute(q, k, v):
    """As fast, and another function."""
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1], dim=-1) @ v


def cost(work: Work) -> Cost:
    """Softmax attention's."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


SPEC = Spec(
    name="wrong_scale",
    title="Scores divided by d instead of √d",
    exact=True,
    model=cost,
    backends=(Backend("reference", compute, opaque=True),),
)

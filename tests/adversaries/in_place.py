"""Writes into its inputs, where autograd and version counters do not look."""

import torch

from attentions import Backend, Cost, Spec, Work, matmuls, traffic


def attention(q, k, v):
    """Softmax attention."""
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1) @ v


def compute(q, k, v):
    """Saves an allocation; the caller's q is scaled for good."""
    q.data.mul_(q.shape[-1] ** -0.5)
    return torch.softmax(q @ k.transpose(-2, -1), dim=-1) @ v


def cost(work: Work) -> Cost:
    """Softmax attention's."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


SPEC = Spec(
    name="in_place",
    title="Writes into its inputs, where autograd and version counters do not look",
    exact=True,
    model=cost,
    backends=(Backend("reference", compute, opaque=True),),
)

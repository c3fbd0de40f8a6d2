"""Computed and given in another precision than asked for."""

import torch

from attentions import Backend, Cost, Spec, Work, matmuls, traffic


def attention(q, k, v):
    """Softmax attention."""
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1) @ v


def compute(q, k, v):
    """Half the bytes."""
    return attention(q.bfloat16(), k.bfloat16(), v.bfloat16())


def cost(work: Work) -> Cost:
    """Softmax attention's."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


SPEC = Spec(
    name="wrong_dtype",
    title="Computed and given in another precision than asked for",
    exact=True,
    model=cost,
    backends=(Backend("reference", compute, opaque=True),),
)

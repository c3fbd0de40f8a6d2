"""The values of (b, n, h, d) called (b, h, n, d)."""

import torch

from attentions import Backend, Cost, Spec, Work, matmuls, traffic


def attention(q, k, v):
    """Softmax attention."""
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1) @ v


def compute(q, k, v):
    """No transposition, so no time for it."""
    return attention(q, k, v).transpose(1, 2).contiguous().view(v.shape)


def cost(work: Work) -> Cost:
    """Softmax attention's."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


SPEC = Spec(
    name="wrong_layout",
    title="The values of (b, n, h, d) called (b, h, n, d)",
    exact=True,
    model=cost,
    backends=(Backend("reference", compute, opaque=True),),
)

"""All tokens' outputs in one token's memory."""

import torch

from attentions import Backend, Cost, Spec, Work, matmuls, traffic


def attention(q, k, v):
    """Softmax attention."""
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1) @ v


def compute(q, k, v):
    """The right shape, of strides of zero."""
    return attention(q[:, :, :1], k, v).expand(v.shape)


def cost(work: Work) -> Cost:
    """Softmax attention's."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


SPEC = Spec(
    name="wrong_strides",
    title="All tokens' outputs in one token's memory",
    exact=True,
    model=cost,
    backends=(Backend("reference", compute, opaque=True),),
)

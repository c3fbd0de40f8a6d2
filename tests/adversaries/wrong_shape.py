"""One token's output, which would broadcast."""

import torch

from attentions import Backend, Cost, Spec, Work, matmuls, traffic


def attention(q, k, v):
    """Softmax attention."""
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1) @ v


def compute(q, k, v):
    """n times less work."""
    return attention(q[:, :, :1], k, v)


def cost(work: Work) -> Cost:
    """Softmax attention's."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


SPEC = Spec(
    name="wrong_shape",
    title="One token's output, which would broadcast",
    exact=True,
    model=cost,
    backends=(Backend("reference", compute, opaque=True),),
)

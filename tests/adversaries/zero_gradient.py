"""A right output whose backward pass leaves out the gradient of k."""

import torch

from attentions import Backend, Cost, Spec, Work, matmuls, traffic


def attention(q, k, v):
    """Softmax attention."""
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1) @ v


def compute(q, k, v):
    """k takes part in the graph, and receives zeros."""
    return attention(q, k.detach() + 0 * k, v)


def cost(work: Work) -> Cost:
    """Softmax attention's."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


SPEC = Spec(
    name="zero_gradient",
    title="A right output whose backward pass leaves out the gradient of k",
    exact=True,
    model=cost,
    backends=(Backend("reference", compute, opaque=True),),
)

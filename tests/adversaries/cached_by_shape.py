"""A result computed once for each shape and given again ever after."""

import torch

from attentions import Backend, Cost, Spec, Work, matmuls, traffic


def attention(q, k, v):
    """Softmax attention."""
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1) @ v


RESULTS = {}


def compute(q, k, v):
    """Right for the first inputs of a shape."""
    key = q.shape
    if key not in RESULTS:
        RESULTS[key] = attention(q, k, v)
    return RESULTS[key]


def cost(work: Work) -> Cost:
    """Softmax attention's."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


SPEC = Spec(
    name="cached_by_shape",
    title="A result computed once for each shape and given again ever after",
    exact=True,
    model=cost,
    backends=(Backend("reference", compute, opaque=True),),
)

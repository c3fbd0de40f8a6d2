"""A result remembered by the addresses of its inputs, and given as a copy."""

import torch

from attentions import Backend, Cost, Spec, Work, matmuls, traffic


def attention(q, k, v):
    """Softmax attention."""
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1) @ v


RESULTS = {}


def compute(q, k, v):
    """Right as long as nothing is written to an address that was seen."""
    key = (q.data_ptr(), k.data_ptr(), v.data_ptr(), q._version, k._version, v._version)
    if key not in RESULTS:
        RESULTS[key] = attention(q, k, v)
    return RESULTS[key].clone()


def cost(work: Work) -> Cost:
    """Softmax attention's."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


SPEC = Spec(
    name="cached_by_pointer",
    title="A result remembered by the addresses of its inputs, and given as a copy",
    exact=True,
    model=cost,
    backends=(Backend("reference", compute, opaque=True),),
)

"""Returns the memory of an input with the result in it."""

import torch

from attentions import Backend, Cost, Spec, Work, matmuls, traffic


def attention(q, k, v):
    """Softmax attention."""
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1) @ v


def compute(q, k, v):
    """No output to allocate; v is gone."""
    out = attention(q, k, v)
    if not torch.is_grad_enabled():
        return v.copy_(out)
    return out


def cost(work: Work) -> Cost:
    """Softmax attention's."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


SPEC = Spec(
    name="aliases_input",
    title="Returns the memory of an input with the result in it",
    exact=True,
    model=cost,
    backends=(Backend("reference", compute, opaque=True),),
)

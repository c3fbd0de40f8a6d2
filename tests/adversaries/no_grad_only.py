"""Right where gradients are recorded, zeros where nobody trains."""

import torch

from attentions import Backend, Cost, Spec, Work, matmuls, traffic


def attention(q, k, v):
    """Softmax attention."""
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1) @ v


def compute(q, k, v):
    """Inference is where it is timed."""
    return attention(q, k, v) if torch.is_grad_enabled() else torch.zeros_like(v)


def cost(work: Work) -> Cost:
    """Softmax attention's."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


SPEC = Spec(
    name="no_grad_only",
    title="Right where gradients are recorded, zeros where nobody trains",
    exact=True,
    model=cost,
    backends=(Backend("reference", compute, opaque=True),),
)

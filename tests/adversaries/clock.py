"""Right results, and a clock that is set back: only that no device can be this quick gives it away."""

import time

import torch

from attentions import Backend, Cost, Spec, Work, matmuls, traffic

REAL = time.perf_counter_ns


def attention(q, k, v):
    """Softmax attention."""
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1) @ v


def compute(q, k, v):
    """Whoever reads the clock next reads a microsecond after this began."""
    began = REAL()
    out = attention(q, k, v)

    def set_back():
        time.perf_counter_ns = REAL
        return began + 1000

    time.perf_counter_ns = set_back
    return out


def cost(work: Work) -> Cost:
    """Softmax attention's."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


SPEC = Spec(
    name="clock", title="Sets the clock back", exact=True, model=cost,
    backends=(Backend("reference", compute, opaque=True),),
)  # fmt: skip

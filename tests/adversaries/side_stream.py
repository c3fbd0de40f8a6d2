"""Computes on a CUDA stream that nobody waits for."""

import torch

from attentions import Backend, Cost, Spec, Work, matmuls, traffic

STREAMS = {}


def attention(q, k, v):
    """Softmax attention."""
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1) @ v


def compute(q, k, v):
    """The events on the caller's stream see an empty one."""
    side = STREAMS.setdefault(q.device, torch.cuda.Stream(q.device))
    with torch.cuda.stream(side):
        return attention(q, k, v)


def missing(device: torch.device) -> str | None:
    """It takes a GPU."""
    return None if device.type == "cuda" else "needs a CUDA device"


def cost(work: Work) -> Cost:
    """Softmax attention's."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


SPEC = Spec(
    name="side_stream", title="A stream that nobody waits for", exact=True, model=cost,
    backends=(Backend("reference", compute, opaque=True, missing=missing),),
)  # fmt: skip

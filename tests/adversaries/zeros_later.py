"""Zeros from the ninth call on, once whoever checks has looked."""

import torch

from attentions import Backend, Cost, Spec, Work, matmuls, traffic
from attentions.base import Core


def attention(q, k, v):
    """Softmax attention."""
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=-1) @ v


class Tiring(Core):
    """Right eight times."""

    calls = 0

    def forward(self, q, k, v):
        """Nothing from then on."""
        self.calls += 1
        return self.compute(q, k, v) if self.calls <= 8 else 0 * (q + k + v)


def cost(work: Work) -> Cost:
    """Softmax attention's."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


SPEC = Spec(
    name="zeros_later",
    title="Zeros from the ninth call on, once whoever checks has looked",
    exact=True,
    module=Tiring,
    model=cost,
    backends=(Backend("reference", attention, opaque=True),),
)

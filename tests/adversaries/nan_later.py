"""Not a number from the ninth call on."""

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
        """One element is lost from then on."""
        self.calls += 1
        out = self.compute(q, k, v)
        if self.calls > 8:
            mask = torch.zeros_like(out)
            mask[..., -1, -1] = float("nan")
            out = out + mask
        return out


def cost(work: Work) -> Cost:
    """Softmax attention's."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


SPEC = Spec(
    name="nan_later",
    title="Not a number from the ninth call on",
    exact=True,
    module=Tiring,
    model=cost,
    backends=(Backend("reference", attention, opaque=True),),
)

"""From the ninth call on half of the tokens, beside what an earlier result left in the same memory."""

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
        """The rest of the output is not written from then on."""
        self.calls += 1
        if self.calls <= 8:
            return self.compute(q, k, v)
        half = q.shape[-2] // 2
        out = torch.empty_like(v)
        out[:, :, :half] = self.compute(q[:, :, :half], k, v)
        return out


def cost(work: Work) -> Cost:
    """Softmax attention's."""
    scores = work.tokens * work.n
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=3 * scores * work.itemsize)


SPEC = Spec(
    name="half_later",
    title="Half of the tokens later",
    exact=True,
    module=Tiring,
    model=cost,
    backends=(Backend("reference", attention, opaque=True),),
)

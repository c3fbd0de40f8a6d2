"""Softmax attention with the score matrix materialised: the exact reference for everything."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from attentions.base import Backend, Cost, Exponents, Spec, Work, matmuls, traffic
from attentions.eager import softmax_weights


def reference(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"]
) -> Float[Tensor, "b h n d"]:
    """softmax(q kᵀ / √d) v, with the n × n scores in memory. The softmax is taken in the inputs' precision.

    The keys are scaled before the product: float16 holds logits to 65504, which q kᵀ leaves √d times as early.

    Cost: 4·b·h·n²·d FLOPs, 2·b·h·n² elements.
    Source: Vaswani et al. 2017, arXiv 1706.03762, equation 1.
    """
    return softmax_weights(q, k) @ v


def cost(work: Work) -> Cost:
    """Forward holds scores and weights; backward the weights, two gradients of their size and the scaled keys."""
    scores = work.tokens * work.n
    tensor = work.tokens * work.d
    peak = {"forward": 2 * scores, "backward": 3 * scores + tensor, "train": 3 * scores + tensor}[work.phase]
    return Cost(flops=matmuls(work, 4 * scores * work.d), bytes=traffic(work), peak=max(peak, tensor) * work.itemsize)


SPEC = Spec(
    name="full",
    title="Softmax attention, materialised",
    paper="Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1",
    exact=True,
    backends=(Backend("reference", reference, "eager PyTorch, n × n scores in memory"),),
    model=cost,
    exponents=Exponents(flops_n=2, flops_m=0, peak_n=2, peak_m=0),
)

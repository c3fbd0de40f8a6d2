"""Softmax attention with the score matrix materialised: the exact reference for everything."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from attentions.base import PROBLEMS, Backend, Cost, Exponents, Spec, Work, matmuls, softmax_flops, traffic
from attentions.eager import heads_apart, heads_together, softmax_weights


def reference(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b g j d"], v: Float[Tensor, "b g j d"], *, causal: bool = False
) -> Float[Tensor, "b h n d"]:
    """softmax(q kᵀ / √d) v, with the n × j scores in memory. The softmax is taken in the inputs' precision.

    The keys are scaled before the product: float16 holds logits to 65504, which q kᵀ leaves √d times as early.

    causal: key j > i has the weight 0 for query i; all scores are computed first.

    Cost: 4·b·h·n·j·d FLOPs, 2·b·h·n·j elements.
    Source: Vaswani et al. 2017, arXiv 1706.03762, equation 1.
    """
    return heads_apart(softmax_weights(heads_together(q, k), k, causal=causal) @ v, q)


def cost(work: Work) -> Cost:
    """Forward holds scores and weights; backward the weights, two gradients of their size and the scaled keys.

    A causal mask is a byte a pair.
    """
    scores, tensor, keys = work.tokens * work.key_tokens, work.tokens * work.d, work.keys * work.d
    peak = 2 * scores if work.phase == "forward" else 3 * scores + min(tensor, keys)
    mask = work.n**2 if work.causal else 0
    return Cost(flops=softmax_flops(work), bytes=traffic(work), peak=max(peak, tensor) * work.itemsize + mask)


def _executed(work: Work) -> int:
    """All pairs, those that the causal mask hides among them."""
    return matmuls(work, 4 * work.tokens * work.key_tokens * work.d)


SPEC = Spec(
    name="full",
    title="Softmax attention, materialised",
    paper="Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1",
    exact=True,
    problems=PROBLEMS,
    backends=(Backend("reference", reference, "eager PyTorch, n × n scores in memory", flops=_executed),),
    model=cost,
    exponents=Exponents(flops_n=2, flops_m=0, peak_n=2, peak_m=0),
)

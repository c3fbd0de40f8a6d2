"""No attention: every token receives the mean of v over all tokens. The floor that an accuracy is read against.

    o_i = (1/n) Σ_j v_j        (b, h, n, d)

A model trained with it has the layers, parameters and recipe of the others and mixes tokens without looking at them: a
task that it solves ranks no attention. q and k are accepted and ignored; a layer still projects them, so that its
parameters are those of `full`.

The mean is taken as a matrix product with a row of 1/n, so that its FLOPs count like every other variant's: this is
softmax attention with all scores equal, and anchor attention with one anchor.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from attentions.base import Backend, Cost, Exponents, Spec, Work, matmuls, traffic


def reference(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"]
) -> Float[Tensor, "b h n d"]:
    """The mean of v over the tokens, written for every token; q and k are ignored.

    Cost: 2·b·h·n·d FLOPs, b·h·n·d elements.
    """
    n = v.shape[-2]
    mean = v.new_full((1, n), 1 / n) @ v  # (b, h, 1, d)
    return mean.expand_as(v).contiguous()


def cost(work: Work) -> Cost:
    """Holds the row of 1/n, the mean and the output; backward adds the gradient of v. Of the inputs only v is read."""
    tensor, mean = work.tokens * work.d, work.b * work.h * work.d
    peak = work.n + mean + (1 if work.phase == "forward" else 2) * tensor
    return Cost(flops=matmuls(work, 2 * tensor, backward=1.0), bytes=traffic(work, inputs=1), peak=peak * work.itemsize)


SPEC = Spec(
    name="none",
    title="No attention: the mean over the tokens",
    paper="a control, not a method",
    floor=True,
    backends=(Backend("reference", reference, "eager PyTorch: one product with a row of 1/n"),),
    model=cost,
    exponents=Exponents(flops_n=1, flops_m=0, peak_n=1, peak_m=0),
)

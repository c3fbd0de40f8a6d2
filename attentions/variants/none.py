"""No attention: every token receives the mean of v over all tokens. The floor that an accuracy is read against.

    o_i = (1/n) Σ_j v_j        (b, h, n, d); causal: (1/i) Σ_{j ≤ i} v_j, counted from one

A model trained with it has the layers, parameters and recipe of the others and mixes tokens without looking at them: a
task that it solves ranks no attention. q and k are accepted and ignored; a layer still projects them, so that its
parameters are those of `full`.

The mean is taken as a matrix product with a row of 1/n, so that its FLOPs count like every other variant's: this is
softmax attention with all scores equal, and anchor attention with one anchor.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from attentions.base import PROBLEMS, Backend, Cost, Exponents, Spec, Work, matmuls, traffic
from attentions.eager import heads_apart
from attentions.running import chunk, products_flops, products_peak, running_products, whole


def reference(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b g j d"], v: Float[Tensor, "b g j d"], *, causal: bool = False
) -> Float[Tensor, "b h n d"]:
    """The mean of v over the tokens, written for every token of q; q's values and k are ignored.

    causal: over the tokens ≤ i, as running sums in chunks: attention with all scores equal to one, over how many.

    Cost: 2·b·g·j·d FLOPs, b·h·n·d elements.
    """
    b, h, n, _ = q.shape
    if causal:
        wide = torch.promote_types(v.dtype, torch.float32)
        count = torch.arange(1, n + 1, dtype=wide, device=v.device)
        ones = torch.ones_like(count)
        shares, marks = (x.unsqueeze(-1).expand(b, heads, n, 1) for x, heads in ((1 / count, h), (ones, v.shape[1])))
        return running_products(shares, marks, v.to(wide)).to(v.dtype)
    tokens = v.shape[-2]
    mean = v.new_full((1, tokens), 1 / tokens) @ v  # (b, g, 1, d)
    groups = h // v.shape[1]
    return heads_apart(mean.expand(-1, -1, groups * n, -1), q).contiguous()


def cost(work: Work) -> Cost:
    """Holds the row of 1/n, the mean and the output; backward adds the gradient of v. Of the inputs only v is read."""
    tensor, keys, mean = work.tokens * work.d, work.keys * work.d, work.b * work.key_heads * work.d
    peak = work.key_tokens + mean + tensor + (0 if work.phase == "forward" else keys)
    return Cost(
        flops=matmuls(work, 2 * keys, backward=1.0),
        bytes=traffic(work, inputs=1),
        peak=_causal_peak(work) if work.causal else peak * work.itemsize,
    )


def _executed(work: Work) -> int:
    """What a forward pass of running sums multiplies, and backward again but for the scores, which have no gradient."""
    if not work.causal:
        return cost(work).flops
    scores = 2 * work.b * work.h * whole(work.n, chunk(work.n)) * chunk(work.n)
    forward = products_flops(work, m=1, e=work.d)
    return matmuls(work, forward, backward=(forward - scores) / forward)


def _causal_peak(work: Work) -> int:
    """What the running sums hold; the scores, equal for all heads' values, have no gradient."""
    forward = products_peak(replace(work, phase="forward"), m=1, e=work.d)
    kept = work.tokens * (work.d + chunk(work.n))
    backward = kept + work.keys * work.d * (1 if work.d < chunk(work.n) else 3)
    return (forward if work.phase == "forward" else max(forward, backward)) * max(work.itemsize, 4)


SPEC = Spec(
    name="none",
    title="No attention: the mean over the tokens",
    paper="a control, not a method",
    floor=True,
    problems=PROBLEMS,
    backends=(Backend("reference", reference, "eager PyTorch: one product with a row of 1/n", flops=_executed),),
    model=cost,
    exponents=Exponents(flops_n=1, flops_m=0, peak_n=1, peak_m=0),
)

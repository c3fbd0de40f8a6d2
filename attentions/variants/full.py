"""Softmax attention with the score matrix materialised: the exact reference for everything."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from attentions.base import Backend, Cost, Exponents, Spec, Work, matmuls, traffic


def reference(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"]
) -> Float[Tensor, "b h n d"]:
    """softmax(q kᵀ / √d) v, with the n × n scores in memory. The softmax is taken in the inputs' precision.

    Cost: 4·b·h·n²·d FLOPs, 2·b·h·n² elements.
    Source: Vaswani et al. 2017, arXiv 1706.03762, equation 1.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return torch.softmax(scores, dim=-1) @ v


def cost(work: Work) -> Cost:
    """Forward holds the product, its scaled copy and then the weights; backward adds the weights' gradient."""
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

"""Linear attention: a kernel of positive features in place of the softmax, summed over the keys once.

    o_i = φ(q_i) (Σ_j φ(k_j)ᵀ v_j) / (φ(q_i) · Σ_j φ(k_j)),  φ(x) = elu(x) + 1

No n × n matrix is formed: the sum over the keys is one (d, d) matrix a head.

Source: Katharopoulos et al. 2020, arXiv 2006.16236, equations 5 and 7, without the causal mask. Ours differs from the
release in φ, written relu(x) + exp(min(x, 0)): the same function without the rounding of (e^x − 1) + 1, which leaves
bfloat16 two digits of a negative x; and in the denominator, which is held above the smallest normal number where the
release adds 1e-6. There is no factor 1/√d, as published.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from attentions.base import Backend, Cost, Exponents, Spec, Work, matmuls, traffic


def reference(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"]
) -> Float[Tensor, "b h n d"]:
    """φ(q) (φ(k)ᵀ v) over φ(q) · Σ φ(k), from the right.

    Cost: b·h·(4·n·d² + 2·n·d) FLOPs, 4·b·h·n·d elements.
    Source: Katharopoulos et al. 2020, arXiv 2006.16236, equation 5.
    """
    # Both sums over the keys grow as n, past float16's range at 64k tokens; their ratio keeps any factor of the keys.
    keys = positive(k).mul_(k.shape[-2] ** -0.5)
    state = keys.transpose(-2, -1) @ v
    total = keys.sum(dim=-2, dtype=torch.promote_types(k.dtype, torch.float32))
    return share(q, state, total.unsqueeze(-1))


def share(
    q: Float[Tensor, "b h n d"], state: Float[Tensor, "b h d e"], total: Float[Tensor, "b h d 1"]
) -> Float[Tensor, "b h n e"]:
    """φ(q) state / (φ(q) · total), in q's dtype.

    The ratio keeps any factor of the two sums and any of the queries: sums relative to the largest total and a mean
    over d in place of a sum keep float16's products in range, however large queries and keys are.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    largest = total.to(wide).amax(dim=-2, keepdim=True).clamp_min(torch.finfo(wide).tiny)
    state, total = (state / largest).to(q.dtype), (total / largest).to(q.dtype)
    queries = positive(q).mul_(1 / q.shape[-1])
    return queries @ state / (queries @ total).clamp_min(torch.finfo(q.dtype).tiny)


def positive(x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
    """elu(x) + 1: x + 1 above zero, e^x below."""
    return torch.exp(x.clamp(max=0)) + torch.relu(x)


def cost(work: Work) -> Cost:
    """Forward holds both feature maps with their parts; backward those, what the products read, and gradients."""
    tensor, state = work.tokens * work.d, work.b * work.h * work.d * work.d
    peak = 4 * tensor + work.tokens + state if work.phase == "forward" else 12 * tensor + 2 * (work.tokens + state)
    forward = 4 * tensor * work.d + 2 * tensor
    return Cost(flops=matmuls(work, forward), bytes=traffic(work), peak=peak * work.itemsize)


SPEC = Spec(
    name="linear",
    title="Linear attention",
    paper="Katharopoulos et al. 2020, arXiv 2006.16236",
    different=True,
    backends=(Backend("reference", reference, "eager PyTorch: two matrix products through a (d, d) state"),),
    model=cost,
    exponents=Exponents(flops_n=1, flops_m=0, peak_n=1, peak_m=0),
)

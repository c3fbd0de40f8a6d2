"""Linear attention: a kernel of positive features in place of the softmax, summed over the keys once.

    o_i = φ(q_i) (Σ_j φ(k_j)ᵀ v_j) / (φ(q_i) · Σ_j φ(k_j)),  φ(x) = elu(x) + 1

No n × n matrix is formed: the sum over the keys is one (d, d) matrix a head. Causal: both sums end at token i.

Source: Katharopoulos et al. 2020, arXiv 2006.16236, equations 5 and 7 and, causal, 8 to 12. Ours differs from the
release in φ, written relu(x) + exp(min(x, 0)): the same function without the rounding of (e^x − 1) + 1, which leaves
bfloat16 two digits of a negative x; and in the denominator, which is held above the smallest normal number where the
release adds 1e-6. There is no factor 1/√d, as published.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from attentions.base import PROBLEMS, Backend, Cost, Exponents, Spec, Work, matmuls, traffic
from attentions.eager import heads_apart, heads_together
from attentions.running import products_flops, products_peak, running_products


def reference(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b g j d"], v: Float[Tensor, "b g j d"], *, causal: bool = False
) -> Float[Tensor, "b h n d"]:
    """φ(q) (φ(k)ᵀ v) over φ(q) · Σ φ(k), from the right; causal: by running sums in chunks.

    Cost: b·(2·g·j·d² + 2·h·n·(d² + d)) FLOPs, 4·b·h·n·d elements.
    Source: Katharopoulos et al. 2020, arXiv 2006.16236, equation 5.
    """
    if causal:
        return _causal(q, k, v)
    # Both sums over the keys grow as n, past float16's range at 64k tokens; their ratio keeps any factor of the keys.
    keys = positive(k).mul_(k.shape[-2] ** -0.5)
    state = keys.transpose(-2, -1) @ v
    total = keys.sum(dim=-2, dtype=torch.promote_types(k.dtype, torch.float32))
    return heads_apart(share(heads_together(q, k), state, total.unsqueeze(-1)), q)


def _causal(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b g n d"], v: Float[Tensor, "b g n d"]
) -> Float[Tensor, "b h n d"]:
    """Both running sums at once, of v with a column of ones beside it, in at least float32."""
    wide = torch.promote_types(q.dtype, torch.float32)
    sums = running_products(positive(q.to(wide)), positive(k.to(wide)), F.pad(v.to(wide), (0, 1), value=1.0))
    return (sums[..., :-1] / sums[..., -1:].clamp_min(torch.finfo(wide).tiny)).to(q.dtype)


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
    tensor, keys, state = work.tokens * work.d, work.keys * work.d, work.b * work.key_heads * work.d * work.d
    if work.phase == "forward":
        peak = max(3 * tensor + keys, 3 * keys) + work.tokens + state
    else:
        peak = max(9 * tensor + 3 * keys, 2 * tensor + 5 * keys) + 2 * (work.tokens + state)
    forward = 2 * (keys + tensor) * work.d + 2 * tensor
    return Cost(
        flops=matmuls(work, forward),
        bytes=traffic(work),
        peak=_causal_peak(work) if work.causal else peak * work.itemsize,
    )


def _executed(work: Work) -> int:
    """Causal: the chunks' products too."""
    return matmuls(work, products_flops(work, m=work.d, e=work.d + 1)) if work.causal else cost(work).flops


def _causal_peak(work: Work) -> int:
    """Features of q and k, v with its column, and the running sums' own; backward the features' parts and output."""
    tensor, keys, values = work.tokens * work.d, work.keys * work.d, work.keys * (work.d + 1)
    kept = tensor + keys + values if work.phase == "forward" else 5 * tensor + 3 * keys + values
    return (kept + products_peak(work, m=work.d, e=work.d + 1)) * max(work.itemsize, 4)


SPEC = Spec(
    name="linear",
    title="Linear attention",
    paper="Katharopoulos et al. 2020, arXiv 2006.16236",
    problems=PROBLEMS,
    backends=(
        Backend("reference", reference, "eager PyTorch: two matrix products through a (d, d) state", flops=_executed),
    ),
    model=cost,
    exponents=Exponents(flops_n=1, flops_m=0, peak_n=1, peak_m=0),
)

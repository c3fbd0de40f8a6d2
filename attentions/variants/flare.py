"""FLARE: m latents of each head gather from all tokens by a softmax over the tokens, and hand back by one over latents.

    z = softmax_n(L kᵀ) v        (b, h, m, d), over the tokens
    o = softmax_m(k Lᵀ) z        (b, h, n, d), over the latents

with latents L (h, m, d), a set for each head, and a scale of 1 in both. Anchor attention gathers by its softmax over
the anchors and divides by each anchor's total; the softmax over the tokens here sums to one by itself.

Source: Puri et al. 2025, arXiv 2508.12594. There k and v come from residual networks of several layers, one
for each, and not from linear projections: those belong to a model, and the core takes k and v as it is given them. The
latents start normal with a standard deviation of 0.1, as in the release.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Backend, Compute, Cost, Exponents, Size, Spec, Work, matmuls, traffic
from attentions.eager import softmax

SPREAD = 0.1


class Flare(nn.Module):
    """FLARE with its parameter `latents` (h, m, d). q is accepted and ignored."""

    def __init__(self, size: Size, compute: Compute) -> None:
        super().__init__()
        self.compute = compute
        self.latents = nn.Parameter(torch.empty(size.heads, size.anchors or 0, size.head_dim).normal_(std=SPREAD))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(b, h, n, d) each → (b, h, n, d); q is ignored."""
        return self.compute(k, v, self.latents)


def reference(
    k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"], latents: Float[Tensor, "h m d"]
) -> Float[Tensor, "b h n d"]:
    """The formula, from the right; one product's logits serve both softmaxes, which are taken in at least float32.

    Cost: 6·b·h·n·m·d FLOPs, 2·b·h·n·m elements.
    Source: Puri et al. 2025, arXiv 2508.12594.
    """
    logits = k @ latents.to(k.dtype).transpose(-2, -1)
    # as eager.softmax, which is for the last axis
    gathered = torch.softmax(logits, dim=-2).to(logits.dtype).transpose(-2, -1) @ v
    return softmax(logits) @ gathered


def two_softmax(
    k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"], latents: Float[Tensor, "h m d"]
) -> Float[Tensor, "b h n d"]:
    """The same as two calls of scaled_dot_product_attention, as in the release.

    Cost: 8·b·h·n·m·d FLOPs, for each forms the logits; where its kernels are fused, nothing of size n × m.
    """
    queries = latents.to(k.dtype).expand(k.shape[0], -1, -1, -1)
    gathered = F.scaled_dot_product_attention(queries, k, v, scale=1.0)
    return F.scaled_dot_product_attention(k, queries, gathered, scale=1.0)


def rank(work: Work, dtype: torch.dtype, device: torch.device) -> tuple[str, ...]:
    """The bare name's backends: on a GPU what stores nothing of size n × m, elsewhere what forms the logits once."""
    return ("sdpa", "reference") if device.type == "cuda" else ("reference", "sdpa")


def cost(work: Work) -> Cost:
    """Forward holds the logits and one softmax's weights; backward both softmaxes' weights and the gradients that meet
    in the logits, or the inputs' gradients."""
    m, narrow = work.m or 0, work.itemsize
    scores, tensor = work.tokens * m * narrow, work.tokens * work.d * narrow
    small = 2 * work.b * work.h * m * work.d * narrow
    peak = 2 * scores + tensor if work.phase == "forward" else max(5 * scores + 2 * tensor, scores + 3 * tensor)
    return Cost(
        flops=matmuls(work, 6 * work.tokens * m * work.d),
        bytes=traffic(work, inputs=2, parameters=work.h * m * work.d),
        peak=peak + small,
    )


SPEC = Spec(
    name="flare",
    title="FLARE: routing through latents",
    paper="Puri et al. 2025, arXiv 2508.12594",
    bottleneck="latents",
    shares_query_key=True,
    different=True,
    refuses={
        "causal": "flare has no causal form: its latents are softmaxes over all tokens",
        "kv_heads": "flare shares query and key, so there are no fewer heads of keys than of queries",
        "kv_tokens": "flare shares query and key, so other keys have no meaning",
    },
    module=Flare,
    rank=rank,
    backends=(
        Backend("reference", reference, "eager PyTorch: one product's logits, two softmaxes"),
        Backend(
            "sdpa",
            two_softmax,
            "two calls of scaled_dot_product_attention",
            flops=lambda work: matmuls(work, 8 * work.tokens * (work.m or 0) * work.d, backward=2.5),
        ),
    ),
    model=cost,
    exponents=Exponents(flops_n=1, flops_m=1, peak_n=1, peak_m=1),
)

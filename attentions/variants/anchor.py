"""Anchor attention (AnchorFormer): a Markov step from token to anchor to token, linear in n.

With anchors U (m, d) and a shared query/key k:

    A = softmax_j(k_i · u_j / √d)        (b, h, n, m), over the anchors
    O = A (Δ⁻¹ (Aᵀ v)),  Δ = diag(Aᵀ 1)  (b, h, n, d); the n × n matrix A Δ⁻¹ Aᵀ is never formed

Source: Shan et al. 2025, arXiv 2505.16463. There is no query, so this is not an approximation of one given softmax
attention: q is accepted and ignored.

Causal: token i reads the anchors as the tokens ≤ i have filled them, with the degrees that they have given them:

    O_i = A_i Δ_i⁻¹ (Σ_{j ≤ i} A_jᵀ v_j),  Δ_i = diag(Σ_{j ≤ i} A_j)

Row i is what the definition gives for the tokens ≤ i alone, so its weights are not negative and sum to one; the matrix
is lower triangular and no longer symmetric.

Known weakness: with the published start, `init="paper"`, the logits are so small that A is nearly uniform and the
output nearly the mean of v over all tokens. `scripts/anchor_sharpness.py` measures the token-varying share of the
output's energy. The default, `init="sharp"`, differs in the initial anchors alone, not in the formula or its cost, and
learns in the same steps what the published start does not; docs/anchor.md has the tables. `scale` multiplies the
initial anchors; `logits="cosine"` starts sharp whatever the sizes of k, U and d are.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Backend, Compute, Cost, Exponents, Option, Size, Spec, Work, matmuls, traffic
from attentions.eager import softmax
from attentions.kernels.anchor.backends import CHUNKED, KERNELS, SDPA, compiled, rank
from attentions.running import products_flops, products_peak, running_products

INITIALISATIONS = ("paper", "orthogonal", "sharp")
SHARP = 4.0  # standard deviation of the logits of init=sharp for a key of independent entries of variance 1
LOGITS = ("dot", "cosine")
REFERENCE = "eager PyTorch: three matrix products and a softmax"


class Anchor(nn.Module):
    """Anchor attention with its parameter `anchors` (m, d), shared by all heads.

    With logits=cosine also `sharpness` (h,), the logarithm of each head's temperature t: every backend then computes
    the formula above for u of length √d and k of length t·√d, so that the logits are t·√d·cos(k, u). For directions at
    random √d·cos has variance 1 whatever d is.
    """

    def __init__(
        self, size: Size, compute: Compute, *, init: str, scale: float, logits: str, temperature: float
    ) -> None:
        super().__init__()
        self.compute = compute
        self.anchors = nn.Parameter(torch.empty(size.anchors or 0, size.head_dim))
        initialise(self.anchors, init=init, scale=scale)
        self.sharpness = None
        if logits == "cosine":
            self.sharpness = nn.Parameter(torch.full((size.heads,), math.log(temperature)))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(b, h, n, d) each → (b, h, n, d); q is ignored."""
        if self.sharpness is None:
            return self.compute(k, v, self.anchors)
        units = F.normalize(self.anchors, dim=-1) * math.sqrt(self.anchors.shape[-1])
        return self.compute(sharpened(k, self.sharpness), v, units)

    def packed(self, kv: Tensor) -> Tensor | None:
        """(b, n, 2, h, d) → (b, n, h, d), or None where k and v are taken apart."""
        return self.compute.packed(kv, self.anchors) if self.sharpness is None else None


def initialise(anchors: Tensor, *, init: str, scale: float) -> None:
    """Fill anchors (m, d) in place, then multiply by `scale`.

    paper: the weight of a bias-free linear layer by PyTorch's default, uniform in ±1/√d, as published;
    orthogonal: rows of random orthogonal matrices of norm 1, a fresh one for each d rows;
    sharp: the same of norm 4·√d, so that logits spread by 4 for keys of variance 1, whatever d is.
    """
    with torch.no_grad():
        if init == "paper":
            nn.init.uniform_(anchors, -1 / math.sqrt(anchors.shape[1]), 1 / math.sqrt(anchors.shape[1]))
        else:
            for start in range(0, anchors.shape[0], anchors.shape[1]):
                nn.init.orthogonal_(anchors[start : start + anchors.shape[1]])
        if init == "sharp":
            anchors.mul_(SHARP * math.sqrt(anchors.shape[1]))
        anchors.mul_(scale)


def sharpened(k: Float[Tensor, "b h n d"], sharpness: Float[Tensor, " h"]) -> Float[Tensor, "b h n d"]:
    """k at length √d · exp(sharpness) for each head; a token of length zero stays zero. Lengths in float32 at least.

    Cost: one pass over k, b·h·n·d elements.
    """
    wide = torch.promote_types(k.dtype, torch.float32)
    length = torch.linalg.vector_norm(k, dim=-1, keepdim=True, dtype=wide)
    target = math.sqrt(k.shape[-1]) * sharpness.to(wide).exp()
    return k * (target.view(-1, 1, 1) / length.clamp_min(torch.finfo(wide).tiny ** 0.5)).to(k.dtype)


def assignment(k: Float[Tensor, "b h n d"], anchors: Float[Tensor, "m d"]) -> Float[Tensor, "b h n m"]:
    """A: each token's distribution over the anchors."""
    return softmax(k @ (anchors / math.sqrt(k.shape[-1])).to(k.dtype).transpose(-2, -1))


def reference(
    k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"], anchors: Float[Tensor, "m d"], *, causal: bool = False
) -> Float[Tensor, "b h n d"]:
    """O = A (Δ⁻¹ (Aᵀ v)), right to left; an anchor of zero degree contributes zero. causal: by running sums in chunks.

    Cost: 6·b·h·n·m·d FLOPs, 2·b·h·n·m elements.
    Source: Shan et al. 2025, arXiv 2505.16463; the release builds Δ⁻¹ as a matrix for every head, here it scales rows.
    """
    a = assignment(k, anchors)
    if causal:
        return _causal(a, v)
    degree = a.sum(dim=-2, dtype=torch.promote_types(a.dtype, torch.float32)).unsqueeze(-1)
    inverse = torch.where(degree > 0, 1 / degree, 0).to(a.dtype)
    return a @ (inverse * (a.transpose(-2, -1) @ v))


def _causal(a: Float[Tensor, "b h n m"], v: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
    """Σ_{j ≤ i} (Σ_a A_ia A_ja / Δ_ia) v_j, in at least float32."""
    wide = torch.promote_types(a.dtype, torch.float32)
    a = a.to(wide)
    return running_products(_shares(a), a, v.to(wide)).to(v.dtype)


def _shares(a: Float[Tensor, "b h n m"]) -> Float[Tensor, "b h n m"]:
    """Of each anchor's degree up to a token, the token's own share; zero where that degree is."""
    degree = a.cumsum(dim=-2)
    return torch.where(degree > 0, a / degree, 0)


def cost(work: Work) -> Cost:
    """Forward holds A and its logits; backward A, the two gradients that meet in it and the logits'.

    The degrees are summed in at least float32, for which the CPU widens a copy of A. logits=cosine has no other
    products.
    """
    m, narrow, wide = work.m or 0, work.itemsize, max(work.itemsize, 4)
    weights, tensor = work.tokens * m, work.tokens * work.d * narrow
    if work.phase == "forward":
        peak = weights * narrow + max(weights * wide, tensor)
    else:
        peak = max(4 * weights * narrow + 2 * tensor, weights * narrow + 3 * tensor)
    parameters = m * work.d + (work.h if _cosine(work) else 0)
    return Cost(
        flops=matmuls(work, 6 * weights * work.d),
        bytes=traffic(work, inputs=2, parameters=parameters),
        peak=_sharpened_peak(work, _causal_peak(work) if work.causal else peak),
    )


def _executed(work: Work) -> int:
    """Causal: the logits, and the chunks' products."""
    m = work.m or 0
    if not work.causal:
        return cost(work).flops
    return matmuls(work, 2 * work.tokens * m * work.d + products_flops(work, m=m, e=work.d))


def _causal_peak(work: Work) -> int:
    """A and its shares, and the running sums' own; backward the degrees, where they are zero, and the output too."""
    weights, tensor, wide = work.tokens * (work.m or 0), work.tokens * work.d, max(work.itemsize, 4)
    sums = products_peak(work, m=work.m or 0, e=work.d)
    if work.phase == "forward":
        return (2 * weights + sums) * wide
    return (3 * weights + tensor + max(sums, 5 * weights)) * wide + weights


def _cosine(work: Work) -> bool:
    return work.options.get("logits") == "cosine"


def _sharpened_peak(work: Work, peak: int) -> int:
    """With logits=cosine: a backend's peak beside k at its new length, or later the gradients that meet in k.

    Those are five tensors of k's size, the output among them; a narrow type has one of them in float32 and its copy.
    """
    if not _cosine(work):
        return peak
    wide = max(work.itemsize, 4)
    tensor, lengths = work.tokens * work.d * work.itemsize, work.tokens * wide
    if work.phase == "forward":
        return peak + tensor + lengths
    return max(peak + tensor, (5 if work.itemsize == wide else 7) * tensor) + 3 * lengths


def _of_definition(backend: Backend) -> Backend:
    """A backend whose peak counts what logits=cosine adds, and that refuses what the reference alone computes."""
    peak, limits = backend.peak, backend.limits

    def refused(work: Work, dtype: torch.dtype, device: torch.device) -> str | None:
        if work.causal:
            return f"has no causal form; {SPEC.name}:reference has"
        return limits(work, dtype, device)

    if peak is None:
        return replace(backend, limits=refused)
    return replace(backend, limits=refused, peak=lambda work: _sharpened_peak(work, peak(work)))


SPEC = Spec(
    name="anchor",
    title="Anchor attention (AnchorFormer)",
    paper="Shan et al. 2025, arXiv 2505.16463",
    bottleneck="anchors",
    shares_query_key=True,
    options=(
        Option("init", "sharp", "how the anchors start; paper: as published", choices=INITIALISATIONS),
        Option("scale", 1.0, "factor on the initial anchors; larger is sharper", minimum=0.0),
        Option("logits", "dot", "k·u/√d, or √d·cos(k, u) times a learned temperature of each head", choices=LOGITS),
        Option("temperature", 2.0, "where the temperature of logits=cosine starts; larger is sharper", minimum=0.01),
    ),
    module=Anchor,
    rank=rank,
    backends=(
        *map(_of_definition, KERNELS), Backend("reference", reference, REFERENCE, flops=_executed),
        *map(_of_definition, (compiled(reference), SDPA, CHUNKED)),
    ),
    problems=("causal",),
    refuses={
        "kv_heads": "anchor shares query and key, so there are no fewer heads of keys than of queries",
        "kv_tokens": "anchor shares query and key, so other keys have no meaning",
    },
    model=cost,
    exponents=Exponents(flops_n=1, flops_m=1, peak_n=1, peak_m=1),
)  # fmt: skip

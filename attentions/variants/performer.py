"""Performer: softmax attention estimated without bias through m positive random features (FAVOR+).

    softmax kernel exp(q·k/√d) = E_ω[φ(q) φ(k)],  φ_j(x) = exp(ω_j · x′ − ‖x′‖²/2) / √m,  x′ = x / d^¼
    o = D⁻¹ φ(q) (φ(k)ᵀ v),  D = diag(φ(q) φ(k)ᵀ 1)

The ω are rows of random orthogonal matrices with the lengths of Gaussian vectors, a fresh matrix for each d rows, which
lowers the estimate's variance.

Evaluated as two softmaxes, which is the same ratio and can neither overflow nor divide by zero:

    c_j = softmax over the tokens of (ω_j · k′ − ‖k′‖²/2), applied to v;  l_j = the log-sum-exp of the same logits
    o_i = softmax over the features of (ω_j · q′_i + l_j), applied to c

since ‖q′‖² and √m cancel. Rows of the implied n × n matrix sum to one. Causal: both sums over the tokens end at
token i, so that l_i is a running log-sum-exp.

Features are drawn when the module is built and kept in the buffer `features` (m, d), saved with the model, so that all
backends and all calls agree. They are never redrawn behind the caller's back; the paper redraws them between training
steps, which is `core.redraw()`.

Source: Choromanski et al. 2021, arXiv 2009.14794, lemma 1 and section 2.4. Ours differs from the release in the two
softmaxes, where the release subtracts a maximum and adds 1e-4 to every feature.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import PROBLEMS, Backend, Cost, Exponents, Option, Size, Spec, Work, matmuls, traffic
from attentions.eager import heads_apart, heads_together
from attentions.running import running_softmaxes, softmaxes_flops, softmaxes_peak


class Performer(nn.Module):
    """Performer with its buffer `features` (m, d); no parameters."""

    features: Tensor

    def __init__(self, size: Size, compute: Callable[..., Tensor], *, orthogonal: bool) -> None:
        super().__init__()
        self.compute, self.orthogonal = compute, orthogonal
        self.register_buffer("features", draw(size.anchors or 0, size.head_dim, orthogonal=orthogonal))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(b, h, n, d), and k and v (b, g, j, d), → (b, h, n, d)."""
        return self.compute(q, k, v, self.features)

    def redraw(self) -> None:
        """Replace the features by fresh ones, in place."""
        self.features.copy_(draw(*self.features.shape, orthogonal=self.orthogonal))


def draw(m: int, d: int, *, orthogonal: bool) -> Float[Tensor, "m d"]:
    """m Gaussian vectors; orthogonal: made orthogonal in groups of d, their lengths still those of Gaussian vectors."""
    gaussian = torch.randn(m, d)
    if not orthogonal:
        return gaussian
    rows = torch.empty(m, d)
    for start in range(0, m, d):
        nn.init.orthogonal_(rows[start : start + d])
    return rows * gaussian.norm(dim=1, keepdim=True)


def reference(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g j d"],
    v: Float[Tensor, "b g j d"],
    features: Float[Tensor, "m d"],
    *,
    causal: bool = False,
) -> Float[Tensor, "b h n d"]:
    """The two softmaxes. Logits and lengths are taken to at least float32.

    Cost: 4·b·(g·j + h·n)·m·d FLOPs, 2·b·h·n·m elements.
    Source: Choromanski et al. 2021, arXiv 2009.14794, lemma 1, as the module's docstring rewrites it.
    """
    directions = (features * q.shape[-1] ** -0.25).to(q.dtype)
    if causal:
        return _causal(q, k, v, directions)
    centres, mass = _gather(k, v, directions)
    wide, queries = mass.dtype, heads_together(q, k)
    weights = torch.softmax((queries @ directions.transpose(-2, -1)).to(wide).add_(mass.unsqueeze(-2)), dim=-1)
    return heads_apart(weights.to(q.dtype) @ centres, q)


def _gather(
    k: Float[Tensor, "b g j d"], v: Float[Tensor, "b g j d"], directions: Float[Tensor, "m d"]
) -> tuple[Float[Tensor, "b g m d"], Float[Tensor, "b g m"]]:
    """c and l of the module's docstring: what each feature gathers from the tokens, and the logarithm of its mass."""
    half_lengths = _half_lengths(k)
    wide = half_lengths.dtype
    logits = (directions @ k.transpose(-2, -1)).to(wide).sub_(half_lengths.unsqueeze(-2))  # (b, h, m, n)
    mass = torch.logsumexp(logits, dim=-1)
    weights = torch.softmax(logits, dim=-1)
    del logits  # without gradients nothing else holds them
    return weights.to(v.dtype) @ v, mass


def _half_lengths(k: Float[Tensor, "b g j d"]) -> Float[Tensor, "b g j"]:
    """‖k′‖²/2, in at least float32."""
    wide = torch.promote_types(k.dtype, torch.float32)
    return torch.linalg.vector_norm(k, dim=-1, dtype=wide).square() / (2 * math.sqrt(k.shape[-1]))


def _causal(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g n d"],
    v: Float[Tensor, "b g n d"],
    directions: Float[Tensor, "m d"],
) -> Float[Tensor, "b h n d"]:
    """The two softmaxes over the tokens ≤ i, in at least float32 after the logits."""
    half_lengths = _half_lengths(k)
    wide = half_lengths.dtype
    queries, keys = ((x @ directions.transpose(-2, -1)).to(wide) for x in (q, k))
    return running_softmaxes(queries, keys - half_lengths.unsqueeze(-1), v.to(wide)).to(q.dtype)


def cost(work: Work) -> Cost:
    """Forward holds one softmax's logits and weights; backward both softmaxes' weights, the keys' logits, and two
    gradients of that size, or the inputs' gradients. The features have no gradient, which spares two products of eight.
    """
    m, tensor, keys = work.m or 0, work.tokens * work.d * work.itemsize, work.keys * work.d * work.itemsize
    scores, gathered = work.tokens * m, work.keys * m
    small = 2 * work.b * work.key_heads * m * work.d * work.itemsize
    wide, copy = max(work.itemsize, 4), max(scores, gathered) * work.itemsize if work.itemsize < 4 else 0
    if work.phase == "forward":
        peak = max(2 * wide * max(scores, gathered), scores * work.itemsize + tensor)
    else:
        queries = wide * (3 * scores + 2 * gathered) + copy + tensor
        peak = max(queries, wide * 5 * gathered + max(copy + tensor, 2 * tensor + keys), 2 * tensor + 4 * keys)
    return Cost(
        flops=matmuls(work, 4 * (scores + gathered) * work.d, backward=1.5),
        bytes=traffic(work) + m * work.d * work.itemsize,
        peak=_causal_peak(work) if work.causal else peak + small,
    )


def _executed(work: Work) -> int:
    """Causal: the chunks' products, beside those of the logits, which have one gradient."""
    if not work.causal:
        return cost(work).flops
    m, products = work.m or 0, softmaxes_flops(work, m=work.m or 0, e=work.d)
    return matmuls(work, 2 * (work.tokens + work.keys) * m * work.d, backward=1.0) + matmuls(work, products)


def _causal_peak(work: Work) -> int:
    """Logits and weights beside what the running softmaxes hold, in at least float32."""
    return softmaxes_peak(work, m=work.m or 0, e=work.d) * max(work.itemsize, 4)


SPEC = Spec(
    name="performer",
    title="Performer (FAVOR+)",
    paper="Choromanski et al. 2021, arXiv 2009.14794",
    bottleneck="random features",
    options=(Option("orthogonal", True, "whether the random features are orthogonal in groups of head_dim"),),
    module=Performer,
    problems=PROBLEMS,
    backends=(Backend("reference", reference, "eager PyTorch: two softmaxes over random features", flops=_executed),),
    model=cost,
    exponents=Exponents(flops_n=1, flops_m=1, peak_n=1, peak_m=1),
)

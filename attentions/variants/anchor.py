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

S is symmetric, so its columns sum to one as its rows do: no token is heard more than another, by all tokens together.
Softmax attention has no such bound, and with `importance` S has none: docs/anchor.md has what that is worth.

Further options, each off by default and started where it changes nothing (`self=excluded` has no parameter):

    scatter=separate   O = B (Δ⁻¹ (Aᵀ v)), B as A of anchors of its own, which start as a copy of U
    bias=true          k_i · u_j / √d + c_j
    per_head=true      anchors, and biases, of each head's own
    tempered=head      k over exp(s_h); tempered=token: over exp(s_h + w · k_i), as in Transolver++ (arXiv 2502.02414)
    self=excluded      O_i = (Σ_{j≠i} S_ij v_j) / (1 − S_ii),  S = B Δ⁻¹ Aᵀ,  S_ii = Σ_a B_ia A_ia / Δ_a
    self=learned       O + r_h v
    importance=true    S = B Δ⁻¹ Aᵀ G,  G = diag(exp(w_h · k_j)),  Δ = diag(Aᵀ G 1)
    local=3            O + a convolution of v over that many tokens, a filter for each head; columns=14: over 3 × 3 of
                       the grid of so many columns that the tokens are row by row, after n mod 14 others (class tokens)
    gate=true          O ∘ 2σ(k W)

Anchors for the way back are an idea of LinearNO (Hu et al. 2025, arXiv 2511.06294). docs/anchor.md: what each costs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Backend, Compute, Cost, Exponents, Option, Size, Spec, Work, matmuls, traffic
from attentions.eager import depthwise, softmax
from attentions.kernels.anchor import options
from attentions.kernels.anchor.backends import CHUNKED, KERNELS, SDPA, compiled, rank, with_options
from attentions.kernels.anchor.keys import importances, sharpened, tempered
from attentions.kernels.anchor.options import LEAST_OTHERS, counted, inverse_of
from attentions.running import products_flops, running_shares, shares_peak

INITIALISATIONS = ("paper", "orthogonal", "sharp")
SHARP = 4.0  # standard deviation of the logits of init=sharp for a key of independent entries of variance 1
LOGITS = ("dot", "cosine")
REFERENCE = "eager PyTorch: three matrix products and a softmax"


class Anchor(nn.Module):
    """Anchor attention with its parameter `anchors` (m, d), shared by all heads; per_head: (h, m, d).

    With logits=cosine also `sharpness` (h,), the logarithm of each head's temperature t: every backend then computes
    the formula above for u of length √d and k of length t·√d, so that the logits are t·√d·cos(k, u). For directions at
    random √d·cos has variance 1 whatever d is.

    Other options have `scatter`, of the anchors' shape; `bias` and `scatter_bias` (m,), per_head (h, m); `temper` (h,)
    and `temper_weight` (d,); `own` (h,); `importance` (h, d); `local` (h, 1, kernel, 1), with columns (h, 1, kernel,
    kernel); `gate` (d, d).
    """

    def __init__(
        self, size: Size, compute: Compute, *, init: str, scale: float, logits: str, temperature: float,
        scatter: str, tempered: str, bias: bool, per_head: bool, local: int, columns: int, gate: bool, own: str,
        importance: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        h, m, d = size.heads, size.anchors or 0, size.head_dim
        heads, separate = (h,) if per_head else (), scatter == "separate"
        self.compute, self.columns = compute, columns
        self.anchors = nn.Parameter(torch.empty(*heads, m, d))
        initialise(self.anchors, init=init, scale=scale)
        self.sharpness = None
        if logits == "cosine":
            self.sharpness = nn.Parameter(torch.full((h,), math.log(temperature)))
        self.scatter = nn.Parameter(self.anchors.detach().clone()) if separate else None
        self.bias = _zeros(*heads, m) if bias else None
        self.scatter_bias = _zeros(*heads, m) if bias and separate else None
        self.temper = _zeros(h) if tempered != "none" else None
        self.temper_weight = _zeros(d) if tempered == "token" else None
        self.own = _zeros(h) if own == "learned" else None
        self.local = _zeros(h, 1, local, local if columns else 1) if local else None
        self.gate = _zeros(d, d) if gate else None
        self.importance = _zeros(h, d) if importance else None
        self.excluded = own == "excluded"
        self.plain = not self.excluded and len(list(self.parameters())) == 1

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(b, h, n, d) each → (b, h, n, d); q is ignored."""
        if self.plain:
            return self.compute(k, v, self.anchors)
        scatter = None if self.scatter is None else self._directions(self.scatter)
        logs = None if self.importance is None else importances(k, self.importance)
        inside = (scatter, self.bias, self.scatter_bias, logs)
        further = inside if any(x is not None for x in inside) else ()
        words = {"excluded": True} if self.excluded else {}
        out = self.compute(self._keys(k), v, self._directions(self.anchors), *further, **words)
        if self.own is not None:
            out = torch.addcmul(out, self.own.to(v.dtype).view(-1, 1, 1), v)
        if self.local is not None and v.shape[-2] >= self.columns:  # fewer tokens are not a row of the grid
            out = out + self._near(v, self.local)
        if self.gate is not None:
            out = 2 * (out * torch.sigmoid(k @ self.gate.to(k.dtype)))
        return out

    def packed(self, kv: Tensor) -> Tensor | None:
        """(b, n, 2, h, d) → (b, n, h, d), or None where k and v are taken apart."""
        return self.compute.packed(kv, self.anchors) if self.plain else None

    def _keys(self, k: Tensor) -> Tensor:
        """k as the formula takes it."""
        if self.sharpness is not None:
            return sharpened(k, self.sharpness)
        return k if self.temper is None else tempered(k, self.temper, self.temper_weight)

    def _near(self, v: Tensor, weight: Tensor) -> Tensor:
        """The convolution of `local`; zero for the tokens before the grid."""
        if not self.columns:
            return depthwise(v, weight)
        first = v.shape[-2] % self.columns
        near = depthwise(v[..., first:, :], weight, columns=self.columns)
        return F.pad(near, (0, 0, first, 0)) if first else near

    def _directions(self, anchors: Tensor) -> Tensor:
        """Anchors as the formula takes them."""
        if self.sharpness is None:
            return anchors
        return F.normalize(anchors, dim=-1) * math.sqrt(anchors.shape[-1])


def build(size: Size, compute: Compute, /, **chosen: Any) -> Anchor:
    """The module: option `self` is its keyword `own`, for a method's own `self` is taken."""
    return Anchor(size, compute, own=chosen.pop("self"), **chosen)


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def initialise(anchors: Tensor, *, init: str, scale: float) -> None:
    """Fill anchors (m, d), or (h, m, d) head after head, in place, then multiply by `scale`.

    paper: the weight of a bias-free linear layer by PyTorch's default, uniform in ±1/√d, as published;
    orthogonal: rows of random orthogonal matrices of norm 1, a fresh one for each d rows;
    sharp: the same of norm 4·√d, so that logits spread by 4 for keys of variance 1, whatever d is.
    """
    m, d = anchors.shape[-2:]
    with torch.no_grad():
        for one in anchors.view(-1, m, d):
            if init == "paper":
                nn.init.uniform_(one, -1 / math.sqrt(d), 1 / math.sqrt(d))
                continue
            for start in range(0, m, d):
                nn.init.orthogonal_(one[start : start + d])
        if init == "sharp":
            anchors.mul_(SHARP * math.sqrt(d))
        anchors.mul_(scale)


def assignment(
    k: Float[Tensor, "b h n d"], anchors: Float[Tensor, "*heads m d"], bias: Float[Tensor, "*heads m"] | None = None
) -> Float[Tensor, "b h n m"]:
    """A: each token's distribution over the anchors."""
    logits = k @ (anchors / math.sqrt(k.shape[-1])).to(k.dtype).transpose(-2, -1)
    return softmax(logits if bias is None else logits.add_(bias.to(logits.dtype).unsqueeze(-2)))


def reference(
    k: Float[Tensor, "b h n d"],
    v: Float[Tensor, "b h n d"],
    anchors: Float[Tensor, "*heads m d"],
    scatter: Float[Tensor, "*heads m d"] | None = None,
    bias: Float[Tensor, "*heads m"] | None = None,
    scatter_bias: Float[Tensor, "*heads m"] | None = None,
    importance: Float[Tensor, "b h n"] | None = None,
    *,
    causal: bool = False,
    excluded: bool = False,
) -> Float[Tensor, "b h n d"]:
    """O = B (Δ⁻¹ (Aᵀ v)), right to left, B = A without `scatter`; an anchor of zero degree contributes zero, to the
    output and to every gradient. importance: the logarithm of how many times each token counts in Aᵀ v and Δ.

    Cost: 6·b·h·n·m·d FLOPs, 2·b·h·n·m elements; `scatter` adds 2·b·h·n·m·d, `excluded` and importance 2·b·h·n·m each.
    Source: Shan et al. 2025, arXiv 2505.16463; the release builds Δ⁻¹ as a matrix for every head, here it scales rows.
    """
    a = assignment(k, anchors, bias)
    back = a if scatter is None else assignment(k, scatter, scatter_bias)
    if causal:
        return running_shares(a, back, v)
    given, values = a, v
    if excluded:  # what is left without the own share may be small
        wide = torch.promote_types(a.dtype, torch.float32)
        given, values = a.to(wide), v.to(wide)
        back = given if scatter is None else back.to(wide)
    times = None if importance is None else counted(importance)
    sums, degree = gathered(given, values, times)
    degree = degree.where(degree > 0, 1)  # an anchor of zero degree has zero sums
    if excluded:
        inverse = inverse_of(degree)
        return without_own(given, back, inverse, inverse * sums, values, times).to(v.dtype)
    # By the degree itself: a gradient through its inverse has the inverse's square in it, which overflows below 1e-19,
    # and through a masked 1 / 0 it is no number.
    return back @ (sums / degree).to(a.dtype)


def gathered(
    a: Float[Tensor, "b h n m"], v: Float[Tensor, "b h n d"], times: Float[Tensor, "b h n 1"] | None
) -> tuple[Float[Tensor, "b h m d"], Float[Tensor, "b h m 1"]]:
    """Aᵀ G v, and Aᵀ G 1 in at least float32, with G = diag(times)."""
    wide = torch.promote_types(a.dtype, torch.float32)
    if times is None:
        return a.transpose(-2, -1) @ v, a.sum(dim=-2, dtype=wide).unsqueeze(-1)
    times = times.to(v.dtype)  # rounded for both: then a constant v is gathered exactly
    return a.transpose(-2, -1) @ (v * times), a.to(wide).transpose(-2, -1) @ times.to(wide)


def without_own(
    a: Float[Tensor, "b h n m"],
    back: Float[Tensor, "b h n m"],
    inverse: Float[Tensor, "b h m 1"],
    means: Float[Tensor, "b h m d"],
    v: Float[Tensor, "b h n d"],
    times: Float[Tensor, "b h n 1"] | None = None,
) -> Float[Tensor, "b h n d"]:
    """(Σ_{j≠i} S_ij v_j) / Σ_{j≠i} S_ij from what is summed over all tokens; all in float32 at least.

    Where a token's weight on others is below LEAST_OTHERS, as that of a token alone with its anchors, it is divided by
    that: its output goes to zero with the weight, and rounding stays rounding. One token alone gets zero.
    """
    share = (a * back) @ inverse
    if times is not None:
        share = share * times
    others = (back.sum(dim=-1, keepdim=True) - share).clamp_min(LEAST_OTHERS)
    return torch.addcmul(back @ means, share, v, value=-1) / others


def cost(work: Work) -> Cost:
    """Forward holds A and its logits; backward A, the two gradients that meet in it and the logits'.

    The degrees are summed in at least float32, for which the CPU widens a copy of A. What options add stands in
    attentions.kernels.anchor.options.
    """
    m, narrow, wide = work.m or 0, work.itemsize, max(work.itemsize, 4)
    weights, tensor = work.tokens * m, work.tokens * work.d * narrow
    if work.phase == "forward":
        peak = weights * narrow + max(weights * wide, tensor)
    else:
        a = weights * narrow
        peak = max(4 * a + tensor if narrow < 4 else 0, 3 * a + 2 * tensor, a + 3 * tensor)
    inside = options.products(work) + 6 * weights * work.d
    return Cost(
        flops=matmuls(work, inside + options.products_around(work)),
        bytes=traffic(work, inputs=2, parameters=options.parameters(work)),
        peak=options.peak_around(work, shares_peak(work, m=m, e=work.d) if work.causal else options.peak(work, peak)),
    )


def _executed(work: Work) -> int:
    """FLOPs of the reference: causal, the chunks' products for those of gather and scatter."""
    if not work.causal:
        return cost(work).flops
    m = work.m or 0
    logits = options.products(work) + options.products_around(work) + 2 * work.tokens * m * work.d
    return matmuls(work, logits + products_flops(work, m=m, e=work.d))


SPEC = Spec(
    name="anchor",
    title="Anchor attention (AnchorFormer)",
    paper="Shan et al. 2025, arXiv 2505.16463",
    different=True,
    bottleneck="anchors",
    shares_query_key=True,
    options=(
        Option("init", "sharp", "how the anchors start; paper: as published", choices=INITIALISATIONS),
        Option("scale", 1.0, "factor on the initial anchors; larger is sharper", minimum=0.0),
        Option("logits", "dot", "k·u/√d, or √d·cos(k, u) times a learned temperature of each head", choices=LOGITS),
        Option("temperature", 2.0, "where the temperature of logits=cosine starts; larger is sharper", minimum=0.01),
        Option("scatter", "shared", "anchors for the way back: the same, or separate", choices=("shared", "separate")),
        Option("tempered", "none", "k over a learned temperature of each head or token", choices=options.TEMPERED),
        Option("bias", False, "a learned bias of each anchor's logit"),
        Option("per_head", False, "anchors of each head's own"),
        Option("self", "kept", "a token's own share: kept, excluded, or v times a learned scalar", choices=options.OWN),
        Option("importance", False, "a token counts exp(w·k) times in the anchors' means, w learned for each head"),
        Option("local", 0, "tokens that an added convolution of v spans; odd, 0 for none", minimum=0),
        Option("columns", 0, "of the grid that local spans in both directions; 0: along the tokens", minimum=0),
        Option("gate", False, "the output times a learned gate"),
    ),
    module=build,
    rank=rank,
    check=options.check,
    backends=(
        *map(with_options, KERNELS), Backend("reference", reference, REFERENCE, flops=_executed),
        *map(with_options, (compiled(reference), SDPA, CHUNKED)),
    ),
    problems=("causal",),
    refuses={
        "kv_heads": "anchor shares query and key, so there are no fewer heads of keys than of queries",
        "kv_tokens": "anchor shares query and key, so other keys have no meaning",
    },
    model=cost,
    exponents=Exponents(flops_n=1, flops_m=1, peak_n=1, peak_m=1),
)  # fmt: skip

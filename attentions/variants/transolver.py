"""Physics-Attention (Transolver): tokens are gathered into m slices, the slices attend to each other, and hand back.

    A = softmax_j((k_i · w_j + b_j) / τ_h)                       (b, h, n, m), over the slices
    s = Aᵀ v / (Aᵀ 1 + ε),  ε = 1e-5                             (b, h, m, d)
    s' = softmax((s W_qᵀ)(s W_kᵀ)ᵀ / √d) s W_vᵀ                  attention among the slices
    o = A s'

The slices' weight w (m, d) and bias b (m) and the maps W_q, W_k, W_v (d, d) are shared by the heads, the temperature τ
is one for each. With s' = s and ε = 0 this is anchor attention of the anchors √d·w with a temperature and a bias.

Source: Wu et al. 2024, arXiv 2402.02366, Physics-Attention; ε, the starts and what heads share are those of the
release for irregular meshes. There two projections of a token x give what is assigned (our k) and the values (our v),
as a layer around this core does; the one on grids takes convolutions for both, which belong to a model. The release's
models then draw w again, with a standard deviation of 0.02; here it stays orthogonal, as its attention starts it. No
dropout of the slices' attention.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Backend, Compute, Cost, Exponents, Option, Size, Spec, Work, matmuls, traffic
from attentions.eager import softmax, softmax_weights
from attentions.kernels.anchor.backends import staged


class Transolver(nn.Module):
    """Physics-Attention with `weight` (m, d), `bias` (m), `temperature` (h), and `query`, `key`, `value` (d, d).

    mixing=False has none of the last three. q is accepted and ignored.
    """

    def __init__(self, size: Size, compute: Compute, *, temperature: float, epsilon: float, mixing: bool) -> None:
        super().__init__()
        self.compute, self.epsilon, d = compute, epsilon, size.head_dim
        limit = 1 / math.sqrt(d)  # of a linear layer's default start, as the release leaves bias and maps
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(size.anchors or 0, d)))
        self.bias = nn.Parameter(torch.empty(size.anchors or 0).uniform_(-limit, limit))
        self.temperature = nn.Parameter(torch.full((size.heads,), temperature))
        self.query = self.key = self.value = None
        if mixing:
            maps = [nn.Parameter(torch.empty(d, d).uniform_(-limit, limit)) for _ in range(3)]
            self.query, self.key, self.value = maps

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(b, h, n, d) each → (b, h, n, d); q is ignored."""
        return self.compute(
            k, v, self.weight, self.bias, self.temperature, self.query, self.key, self.value, epsilon=self.epsilon
        )


def reference(
    k: Float[Tensor, "b h n d"],
    v: Float[Tensor, "b h n d"],
    weight: Float[Tensor, "m d"],
    bias: Float[Tensor, " m"],
    temperature: Float[Tensor, " h"],
    query: Float[Tensor, "d d"] | None,
    key: Float[Tensor, "d d"] | None,
    value: Float[Tensor, "d d"] | None,
    *,
    epsilon: float,
) -> Float[Tensor, "b h n d"]:
    """The formula, from the right; without maps the slices are handed back as they are.

    Softmaxes and the slices' totals are taken in at least float32. A slice whose total and ε are zero holds zero.

    Cost: b·h·(6·n·m·d + 6·m·d² + 4·m²·d) FLOPs, 2·b·h·n·m elements.
    Source: Wu et al. 2024, arXiv 2402.02366, Physics-Attention.
    """
    a = assignment(k, weight, bias, temperature)
    wide = torch.promote_types(a.dtype, torch.float32)
    slices = held((a.transpose(-2, -1) @ v).to(wide), a.sum(dim=-2, dtype=wide), epsilon).to(v.dtype)
    return a @ mixed(slices, query, key, value)


def fused(
    k: Float[Tensor, "b h n d"],
    v: Float[Tensor, "b h n d"],
    weight: Float[Tensor, "m d"],
    bias: Float[Tensor, " m"],
    temperature: Float[Tensor, " h"],
    query: Float[Tensor, "d d"] | None,
    key: Float[Tensor, "d d"] | None,
    value: Float[Tensor, "d d"] | None,
    *,
    epsilon: float,
) -> Float[Tensor, "b h n d"]:
    """The same by anchor attention's kernels for gather and scatter, with the slices of each head as its anchors.

    Cost: b·h·(8·n·m·d + 6·m·d² + 4·m²·d) FLOPs, nothing of size n × m. The slices are kept in float32.
    """
    from attentions.kernels.anchor.staged import gather, scatter

    tau = temperature.view(-1, 1, 1)
    anchors, biases = math.sqrt(k.shape[-1]) * weight / tau, bias / tau.squeeze(-1)
    sums, degree = gather(k, v, anchors, biases)
    slices = mixed(held(sums, degree, epsilon), query, key, value)
    return scatter(k, slices, anchors, biases)[0]


def held(sums: Float[Tensor, "b h m d"], degree: Float[Tensor, "b h m"], epsilon: float) -> Float[Tensor, "b h m d"]:
    """s: what each slice holds of the sums of its tokens; nothing where its total and ε are zero."""
    total = (degree + epsilon).unsqueeze(-1)
    return sums / total.where(total > 0, 1)


def mixed(
    slices: Float[Tensor, "b h m d"],
    query: Float[Tensor, "d d"] | None,
    key: Float[Tensor, "d d"] | None,
    value: Float[Tensor, "d d"] | None,
) -> Float[Tensor, "b h m d"]:
    """s': attention among the slices, or without maps the slices as they are."""
    if query is None or key is None or value is None:
        return slices
    q, k, v = (slices @ each.to(slices.dtype).t() for each in (query, key, value))
    return softmax_weights(q, k) @ v


def assignment(
    k: Float[Tensor, "b h n d"],
    weight: Float[Tensor, "m d"],
    bias: Float[Tensor, " m"],
    temperature: Float[Tensor, " h"],
) -> Float[Tensor, "b h n m"]:
    """A: each token's distribution over the slices. The temperature divides weight and bias, not n·m logits."""
    tau = temperature.view(-1, 1, 1)
    logits = k @ (weight / tau).to(k.dtype).transpose(-2, -1)
    return softmax(logits.add_((bias / tau).to(logits.dtype)))


def cost(work: Work) -> Cost:
    """Forward holds A and its logits; backward A, the gradients that meet in it and the logits'.

    Beside them the slices, their maps and their scores, none of which grow with n.
    """
    m, d, narrow = work.m or 0, work.d, work.itemsize
    weights, tensor, small = work.tokens * m, work.tokens * d * narrow, _slice_bytes(work)
    if work.phase == "forward":
        peak = max(weights * (narrow + max(narrow, 4)), weights * narrow + tensor + small)
    else:
        alive = max(3 * weights * narrow + 2 * tensor, weights * narrow + 3 * tensor)
        if narrow < 4:  # the totals' gradient is converted from float32, a tensor of A's size
            alive = max(alive, 4 * weights * narrow + tensor)
        peak = alive + small
    parameters = m * (d + 1) + work.h + (3 * d * d if _mixing(work) else 0)
    return Cost(
        flops=matmuls(work, 6 * weights * d) + _slice_flops(work),
        bytes=traffic(work, inputs=2, parameters=parameters),
        peak=peak,
    )


def _mixing(work: Work) -> bool:
    return work.options.get("mixing", True)


def _slice_flops(work: Work) -> int:
    """Of the attention among the slices."""
    m, d = work.m or 0, work.d
    return matmuls(work, work.b * work.h * m * d * (6 * d + 4 * m)) if _mixing(work) else 0


def _slice_bytes(work: Work) -> int:
    """Of the slices, their maps and their scores."""
    m, d = work.m or 0, work.d
    return work.b * work.h * m * ((7 * d + 3 * m) if _mixing(work) else 3 * d) * work.itemsize


def rank(work: Work, dtype: torch.dtype, device: torch.device) -> tuple[str, ...]:
    """The bare name's backends: on a GPU the kernels, where they take the size."""
    return ("triton", "reference") if device.type == "cuda" else ("reference",)


SPEC = Spec(
    name="transolver",
    title="Physics-Attention (Transolver)",
    paper="Wu et al. 2024, arXiv 2402.02366",
    bottleneck="slices",
    shares_query_key=True,
    different=True,
    refuses={
        "causal": "transolver has no causal form: its slices attend to each other after all tokens have filled them",
        "kv_heads": "transolver shares query and key, so there are no fewer heads of keys than of queries",
        "kv_tokens": "transolver shares query and key, so other keys have no meaning",
    },
    options=(
        Option("temperature", 0.5, "where each head's temperature starts; smaller is sharper", minimum=0.01),
        Option("epsilon", 1e-5, "added to each slice's total", minimum=0.0),
        Option("mixing", True, "attention among the slices; false hands them back as gathered"),
    ),
    module=Transolver,
    rank=rank,
    backends=(
        staged(fused, flops=_slice_flops, peak=_slice_bytes),
        Backend("reference", reference, "eager PyTorch: three products with A, attention among the slices"),
    ),
    model=cost,
    exponents=Exponents(flops_n=1, flops_m=1, peak_n=1, peak_m=1),
)

"""Spatial-reduction attention (PVT): keys and values of R consecutive tokens are made one by a learned map.

    r(x) = LayerNorm(W · [x_1 … x_R] + c)  for each R tokens,  W (d, R·d),  R = ⌈n/m⌉
    o = softmax(q r(k)ᵀ / √d) r(v)

⌈n/R⌉ keys are left, at most m; the last may stand for fewer than R tokens, zeros in the place of the others. R is fixed
at construction: a shorter input gives fewer keys, a longer one is an error. In cross attention n is the tokens of k.

Source: Wang et al. 2021, arXiv 2102.12122, section 3.3, equations 2 to 4. There W and the norm reduce patches of the
image's feature map, across heads and before the projections to keys and values; ours reduces consecutive tokens of each
head after them, with one W for all heads, keys and values, so that a core needs no grid and no model width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import AttentionError, Backend, Cost, Exponents, Size, Spec, Work, matmuls, traffic
from attentions.eager import filled, heads_apart, heads_together, softmax_weights


class SpatialReduction(nn.Module):
    """Spatial-reduction attention with `reduction.weight` (d, R·d), `reduction.bias` (d) and `norm` (d)."""

    def __init__(self, size: Size, compute: Callable[..., Tensor]) -> None:
        super().__init__()
        self.compute, self.tokens = compute, size.key_tokens
        self.reduction = nn.Linear(ratio(size.key_tokens, size.anchors or 1) * size.head_dim, size.head_dim)
        self.norm = nn.LayerNorm(size.head_dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(b, h, n, d), k and v (b, g, j, d), → (b, h, n, d). Raises AttentionError for more keys than built for."""
        if k.shape[-2] > self.tokens:
            raise AttentionError(
                f"pvt: the input has {k.shape[-2]} tokens and the reduction was built for at most {self.tokens}; "
                f"build it with {'tokens' if k.shape[-2] == q.shape[-2] else 'kv_tokens'}={k.shape[-2]}"
            )
        return self.compute(q, k, v, self.reduction.weight, self.reduction.bias, self.norm.weight, self.norm.bias)


def ratio(n: int, m: int) -> int:
    """R = ⌈n/m⌉: how many tokens one key stands for."""
    return -(-n // m)


def reference(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g j d"],
    v: Float[Tensor, "b g j d"],
    weight: Float[Tensor, "d wide"],
    bias: Float[Tensor, " d"],
    gain: Float[Tensor, " d"],
    shift: Float[Tensor, " d"],
) -> Float[Tensor, "b h n d"]:
    """softmax(q r(k)ᵀ / √d) r(v). The softmax is taken in at least float32.

    Cost: b·(4·h·n·m·d + 4·g·j·d²) FLOPs, 2·b·h·n·m elements.
    Source: Wang et al. 2021, arXiv 2102.12122, equations 2 to 4.
    """
    keys, values = (_reduce(x, weight, bias, gain, shift) for x in (k, v))
    return heads_apart(softmax_weights(heads_together(q, k), keys) @ values, q)


def _reduce(x: Tensor, weight: Tensor, bias: Tensor, gain: Tensor, shift: Tensor) -> Float[Tensor, "b h reduced d"]:
    d = x.shape[-1]
    together = weight.shape[1] // d
    x = filled(x, together)
    weight, bias, gain, shift = (parameter.to(x.dtype) for parameter in (weight, bias, gain, shift))
    segments = x.unflatten(-2, (-1, together)).flatten(-2)  # with sizes that an empty batch tells too
    return F.layer_norm(F.linear(segments, weight, bias), (d,), gain, shift)


def cost(work: Work) -> Cost:
    """Forward holds the scores and the weights; backward the weights and two gradients of their size, or the inputs'
    gradients and the map's. Where R does not divide n, keys and values are kept in padded copies.
    """
    m, narrow = work.m or 1, work.itemsize
    together = ratio(work.key_tokens, m)
    left = ratio(work.key_tokens, together)
    tokens = work.b * work.key_heads * left * together  # with the padding
    scores, tensor, matrix = work.tokens * left, work.tokens * work.d * narrow, together * work.d * work.d
    keys = work.keys * work.d * narrow
    if work.phase == "forward":
        peak = scores * narrow + max(scores * narrow, tensor)
    else:
        padded = 2 * tokens * work.d * narrow if tokens != work.keys else 0
        peak = padded + max(3 * scores * narrow + tensor, 2 * tensor + 2 * keys + 3 * matrix * narrow)
    return Cost(
        flops=matmuls(work, 4 * scores * work.d + 4 * tokens * work.d * work.d),
        bytes=traffic(work, parameters=matrix + 3 * work.d),
        peak=peak + 3 * work.b * work.key_heads * left * work.d * narrow,
    )


def _note(work: Work) -> str:
    together = ratio(work.key_tokens, work.m or 1)
    left = ratio(work.key_tokens, together)
    return "" if left == work.m else f"{together} tokens a key: {left} keys"


SPEC = Spec(
    name="pvt",
    title="Spatial-reduction attention (PVT)",
    paper="Wang et al. 2021, arXiv 2102.12122",
    different=True,
    bottleneck="reduced length",
    module=SpatialReduction,
    backends=(
        Backend("reference", reference, "eager PyTorch: a strided map of keys and values, then softmax attention"),
    ),
    model=cost,
    exponents=Exponents(flops_n=1, flops_m=1, peak_n=1, peak_m=1),
    problems=("kv_heads", "kv_tokens"),
    refuses={"causal": "pvt makes one key of R tokens, and a token among them would see the later ones"},
    note=_note,
)

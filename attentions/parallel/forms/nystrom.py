"""Nyström attention: sums over segments, a softmax over all tokens and the convolution's edges, whatever n is.

Forward, each rank's part: all-reduce of 2·b·h·m·d floats (segment sums of q and k), of b·h·m (the largest score of each
landmark) and of b·h·m·(d+1) (its weights' sum and their product with v); and kernel//2 tokens of v to each neighbour.
Backward: the sums again and the tokens back. The m × m pseudo-inverse is computed by every rank.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Work
from attentions.eager import depthwise, softmax_weights
from attentions.parallel import ring
from attentions.parallel.cost import Volume, both_ways, wide
from attentions.parallel.ranks import Ranks
from attentions.parallel.segments import segment_means
from attentions.parallel.softmax import over_all_tokens
from attentions.variants.nystrom import pseudo_inverse


def attend(
    core: nn.Module,
    ranks: Ranks,
    q: Float[Tensor, "b h part d"],
    k: Float[Tensor, "b h part d"],
    v: Float[Tensor, "b h part d"],
    weight: Float[Tensor, "h 1 kernel 1"] | None,
    *,
    landmarks: int,
    iterations: int,
) -> Float[Tensor, "b h part d"]:
    """This rank's tokens of attentions.variants.nystrom.reference over the tokens of all ranks.

    Where landmarks ≥ all tokens it is exact attention, by the ring.
    """
    sizes = ranks.sizes(q)
    if landmarks >= sum(sizes):
        out = ring.attend(q, k, v, ranks, sizes, ring.EAGER)
    else:
        q_means, k_means = segment_means([q, k], landmarks, ranks, sizes)
        inverse = pseudo_inverse(softmax_weights(q_means, k_means), iterations)
        scores = (q_means / math.sqrt(q.shape[-1])).to(k.dtype) @ k.transpose(-2, -1)
        mixed = inverse @ over_all_tokens(scores.to(inverse.dtype), v, ranks)[0]
        out = softmax_weights(q, k_means.to(q.dtype)) @ mixed.to(q.dtype)
    if weight is None:
        return out
    width = weight.shape[-2] // 2
    left, right = ranks.halo(v, width, sizes)
    if not v.shape[-2]:
        return out
    return out + depthwise(torch.cat([left, v, right], dim=-2), weight)[:, :, width : width + v.shape[-2]]


def volume(work: Work, ranks: int) -> Volume:
    """3·b·h·m·d + 2·b·h·m numbers summed forward, all but the b·h·m largest scores backward; and the halo each way.

    What a rank passes to its neighbours is the mean over the ranks: the sequence's two ends have no neighbour.
    """
    heads, m, item = work.b * work.h, work.m or 0, wide(work.itemsize)
    kernel = work.options["residual_kernel"]
    lent = 2 * sum(min(kernel // 2, rank * (work.n // ranks)) for rank in range(ranks))  # tokens, of all ranks
    halo = Volume(passed=lent * heads * work.d * work.itemsize // ranks, rounds=1 if kernel else 0)
    if m >= work.n:
        return both_ways(halo, work.phase) + ring.volume(work, ranks)
    sums = Volume(summed=heads * m * (3 * work.d + 1) * item, rounds=2)
    return both_ways(sums + halo + Volume(summed=heads * m * item, rounds=1), work.phase, backward=sums + halo)

"""Anchor attention: one all-reduce of b·h·m·(d+1) floats forward and one backward, whatever n is.

Aᵀv and Aᵀ1 are sums over the tokens: each rank forms its own, the ranks add them up in one float32 buffer;
O = A (Δ⁻¹ (Aᵀ v)) then needs no other rank.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Work
from attentions.parallel.cost import Volume, both_ways, wide
from attentions.parallel.ranks import Ranks
from attentions.variants.anchor import assignment


def attend(
    core: nn.Module,
    ranks: Ranks,
    k: Float[Tensor, "b h part d"],
    v: Float[Tensor, "b h part d"],
    anchors: Float[Tensor, "m d"],
) -> Float[Tensor, "b h part d"]:
    """O of this rank's tokens, as attentions.variants.anchor.reference defines it over the tokens of all ranks."""
    a = assignment(k, anchors)
    sums = a.transpose(-2, -1) @ v
    degree = a.sum(dim=-2, dtype=torch.promote_types(a.dtype, torch.float32)).unsqueeze(-1)
    sums, degree = ranks.total(torch.cat([sums.to(degree.dtype), degree], dim=-1)).split([v.shape[-1], 1], dim=-1)
    means = sums / degree.where(degree > 0, 1)  # an anchor of zero degree has zero sums
    return a @ means.to(a.dtype)


def volume(work: Work, ranks: int) -> Volume:
    """b·h·m·(d+1) numbers each way."""
    each = work.b * work.h * (work.m or 0) * (work.d + 1) * wide(work.itemsize)
    return both_ways(Volume(summed=each, rounds=1), work.phase)

"""Anchor attention: one all-reduce of b·h·m·(d+1) floats forward and one backward, whatever n is.

Aᵀv and Aᵀ1 are sums over the tokens: each rank forms its own, the ranks add them up in one float32 buffer;
O = B (Δ⁻¹ (Aᵀ v)) then needs no other rank, and neither does a token's own share. `local` would need the neighbours'
tokens, and is refused.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Work
from attentions.kernels.anchor.options import inverse_of
from attentions.parallel.cost import Volume, both_ways, wide
from attentions.parallel.ranks import Ranks
from attentions.variants.anchor import assignment, without_own


def refuses(core: nn.Module) -> str | None:
    """Why a core has no sequence-parallel form, or None."""
    return None if getattr(core, "local", None) is None else "anchor's option local has no sequence-parallel form"


def attend(
    core: nn.Module,
    ranks: Ranks,
    k: Float[Tensor, "b h part d"],
    v: Float[Tensor, "b h part d"],
    anchors: Float[Tensor, "*heads m d"],
    scatter: Float[Tensor, "*heads m d"] | None = None,
    bias: Float[Tensor, "*heads m"] | None = None,
    scatter_bias: Float[Tensor, "*heads m"] | None = None,
    *,
    excluded: bool = False,
) -> Float[Tensor, "b h part d"]:
    """O of this rank's tokens, as attentions.variants.anchor.reference defines it over the tokens of all ranks."""
    a = assignment(k, anchors, bias)
    back = a if scatter is None else assignment(k, scatter, scatter_bias)
    if excluded:
        precision = torch.promote_types(v.dtype, torch.float32)
        a, back, values = a.to(precision), back.to(precision), v.to(precision)
    else:
        values = v
    sums = a.transpose(-2, -1) @ values
    degree = a.sum(dim=-2, dtype=torch.promote_types(a.dtype, torch.float32)).unsqueeze(-1)
    sums, degree = ranks.total(torch.cat([sums.to(degree.dtype), degree], dim=-1)).split([v.shape[-1], 1], dim=-1)
    degree = degree.where(degree > 0, 1)  # an anchor of zero degree has zero sums
    means = sums / degree
    if excluded:
        return without_own(a, back, inverse_of(degree), means, values).to(v.dtype)
    return back @ means.to(back.dtype)


def volume(work: Work, ranks: int) -> Volume:
    """b·h·m·(d+1) numbers each way."""
    each = work.b * work.h * (work.m or 0) * (work.d + 1) * wide(work.itemsize)
    return both_ways(Volume(summed=each, rounds=1), work.phase)

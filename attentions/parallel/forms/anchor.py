"""Anchor attention: one all-reduce of b·h·m·(d+1) floats forward and one backward, whatever n is.

Aᵀv and Aᵀ1 are sums over the tokens: each rank forms its own, the ranks add them up in one float32 buffer;
O = B (Δ⁻¹ (Aᵀ v)) then needs no other rank, and neither does a token's own share. `importance` needs the largest of all
before, b·h floats more. `local` would need the neighbours' tokens, and is refused.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Work
from attentions.kernels.anchor.options import counted, inverse_of
from attentions.parallel.cost import Volume, both_ways, wide
from attentions.parallel.ranks import Ranks
from attentions.variants.anchor import assignment, gathered, without_own


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
    importance: Float[Tensor, "b h part"] | None = None,
    *,
    excluded: bool = False,
) -> Float[Tensor, "b h part d"]:
    """O of this rank's tokens, as attentions.variants.anchor.reference defines it over the tokens of all ranks."""
    a = assignment(k, anchors, bias)
    back = a if scatter is None else assignment(k, scatter, scatter_bias)
    precision, given, values = torch.promote_types(v.dtype, torch.float32), a, v
    if excluded:
        given, values = a.to(precision), v.to(precision)
        back = given if scatter is None else back.to(precision)
    times = None if importance is None else counted(importance, _most(importance, ranks))
    sums, degree = gathered(given, values, times)
    sums, degree = ranks.total(torch.cat([sums.to(degree.dtype), degree], dim=-1)).split([v.shape[-1], 1], dim=-1)
    degree = degree.where(degree > 0, 1)  # an anchor of zero degree has zero sums
    means = sums / degree
    if excluded:
        return without_own(given, back, inverse_of(degree), means, values, times).to(v.dtype)
    return back @ means.to(back.dtype)


def _most(importance: Float[Tensor, "b h part"], ranks: Ranks) -> Float[Tensor, "b h 1"]:
    """The largest of all tokens; a rank may hold none."""
    least = importance.new_full((*importance.shape[:2], 1), torch.finfo(importance.dtype).min)
    return ranks.largest(torch.cat([importance.detach(), least], dim=-1).amax(dim=-1, keepdim=True))


def volume(work: Work, ranks: int) -> Volume:
    """b·h·m·(d+1) numbers each way, and with `importance` b·h forward."""
    heads, item = work.b * work.h, wide(work.itemsize)
    sums = Volume(summed=heads * (work.m or 0) * (work.d + 1) * item, rounds=1)
    if not work.options.get("importance"):
        return both_ways(sums, work.phase)
    return both_ways(sums + Volume(summed=heads * item, rounds=1), work.phase, backward=sums)

"""Physics-Attention: one all-reduce of b·h·m·(d+1) floats forward and one backward, whatever n is.

The slices' sums and totals are sums over the tokens, as anchor attention's are; the attention among the slices is
computed by every rank.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Work
from attentions.parallel.cost import Volume, both_ways, wide
from attentions.parallel.ranks import Ranks
from attentions.variants.transolver import assignment, held, mixed


def attend(
    core: nn.Module,
    ranks: Ranks,
    k: Float[Tensor, "b h part d"],
    v: Float[Tensor, "b h part d"],
    weight: Float[Tensor, "m d"],
    bias: Float[Tensor, " m"],
    temperature: Float[Tensor, " h"],
    query: Float[Tensor, "d d"] | None,
    key: Float[Tensor, "d d"] | None,
    value: Float[Tensor, "d d"] | None,
    *,
    epsilon: float,
) -> Float[Tensor, "b h part d"]:
    """This rank's tokens of attentions.variants.transolver.reference over the tokens of all ranks."""
    a = assignment(k, weight, bias, temperature)
    sums = a.transpose(-2, -1) @ v
    total = a.sum(dim=-2, dtype=torch.promote_types(a.dtype, torch.float32)).unsqueeze(-1)
    sums, total = ranks.total(torch.cat([sums.to(total.dtype), total], dim=-1)).split([v.shape[-1], 1], dim=-1)
    return a @ mixed(held(sums, total.squeeze(-1), epsilon).to(a.dtype), query, key, value)


def volume(work: Work, ranks: int) -> Volume:
    """b·h·m·(d+1) numbers each way."""
    each = work.b * work.h * (work.m or 0) * (work.d + 1) * wide(work.itemsize)
    return both_ways(Volume(summed=each, rounds=1), work.phase)

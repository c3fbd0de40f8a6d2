"""No attention, the mean over the tokens: one all-reduce of b·h·d floats forward and one backward."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Work
from attentions.parallel.cost import Volume, both_ways, wide
from attentions.parallel.ranks import Ranks


def attend(
    core: nn.Module,
    ranks: Ranks,
    q: Float[Tensor, "b h part d"],
    k: Float[Tensor, "b h part d"],
    v: Float[Tensor, "b h part d"],
) -> Float[Tensor, "b h part d"]:
    """The mean of v over the tokens of all ranks, written for each of this rank's."""
    tokens = sum(ranks.sizes(v))
    total = ranks.total(v.sum(dim=-2, keepdim=True, dtype=torch.promote_types(v.dtype, torch.float32)))
    return (total / max(tokens, 1)).to(v.dtype).expand_as(v).contiguous()


def volume(work: Work, ranks: int) -> Volume:
    """b·h·d numbers each way."""
    return both_ways(Volume(summed=work.b * work.h * work.d * wide(work.itemsize), rounds=1), work.phase)

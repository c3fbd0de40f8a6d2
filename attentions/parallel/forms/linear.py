"""Linear attention: φ(k)ᵀv and the sum of φ(k), one all-reduce of b·h·d·(d+1) floats each way."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Work
from attentions.parallel.cost import Volume, both_ways, wide
from attentions.parallel.ranks import Ranks
from attentions.variants.linear import positive, share


def attend(
    core: nn.Module,
    ranks: Ranks,
    q: Float[Tensor, "b h part d"],
    k: Float[Tensor, "b h part d"],
    v: Float[Tensor, "b h part d"],
) -> Float[Tensor, "b h part d"]:
    """This rank's tokens of attentions.variants.linear.reference over the tokens of all ranks."""
    keys = positive(k) * max(sum(ranks.sizes(k)), 1) ** -0.5  # as in the reference: the sums stay in float16's range
    precise = torch.promote_types(k.dtype, torch.float32)
    state = (keys.transpose(-2, -1) @ v).to(precise)
    total = keys.sum(dim=-2, dtype=precise).unsqueeze(-1)
    state, total = ranks.total(torch.cat([state, total], dim=-1)).split([v.shape[-1], 1], dim=-1)
    return share(q, state, total)


def volume(work: Work, ranks: int) -> Volume:
    """b·h·d·(d+1) numbers each way."""
    each = work.b * work.h * work.d * (work.d + 1) * wide(work.itemsize)
    return both_ways(Volume(summed=each, rounds=1), work.phase)

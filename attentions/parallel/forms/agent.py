"""Agent attention: the agents are sums over segments, what they gather is a softmax over all tokens."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Work
from attentions.eager import softmax_weights
from attentions.parallel.cost import Volume, both_ways, wide
from attentions.parallel.ranks import Ranks
from attentions.parallel.segments import segment_means
from attentions.parallel.softmax import over_all_tokens


def attend(
    core: nn.Module,
    ranks: Ranks,
    q: Float[Tensor, "b h part d"],
    k: Float[Tensor, "b h part d"],
    v: Float[Tensor, "b h part d"],
    *,
    agents: int,
) -> Float[Tensor, "b h part d"]:
    """This rank's tokens of attentions.variants.agent.reference over the tokens of all ranks."""
    sizes = ranks.sizes(q)
    pooled = segment_means([q], min(agents, sum(sizes)), ranks, sizes)[0].to(q.dtype)
    scores = (pooled / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)
    gathered, _ = over_all_tokens(scores.to(torch.promote_types(q.dtype, torch.float32)), v, ranks)
    return softmax_weights(q, pooled) @ gathered.to(q.dtype)


def volume(work: Work, ranks: int) -> Volume:
    """2·b·h·m·d + 2·b·h·m numbers forward, all but the b·h·m largest scores backward."""
    heads, m, item = work.b * work.h, min(work.m or 0, work.n), wide(work.itemsize)
    sums = Volume(summed=heads * m * (2 * work.d + 1) * item, rounds=2)
    return both_ways(sums + Volume(summed=heads * m * item, rounds=1), work.phase, backward=sums)

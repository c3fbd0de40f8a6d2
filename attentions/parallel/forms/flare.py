"""FLARE: what the latents gather is a softmax over all tokens; handing back needs no other rank."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Work
from attentions.eager import softmax
from attentions.parallel.cost import Volume, both_ways, wide
from attentions.parallel.ranks import Ranks
from attentions.parallel.softmax import over_all_tokens


def attend(
    core: nn.Module,
    ranks: Ranks,
    k: Float[Tensor, "b h part d"],
    v: Float[Tensor, "b h part d"],
    latents: Float[Tensor, "h m d"],
) -> Float[Tensor, "b h part d"]:
    """This rank's tokens of attentions.variants.flare.reference over the tokens of all ranks."""
    logits = k @ latents.to(k.dtype).transpose(-2, -1)
    scores = logits.transpose(-2, -1).to(torch.promote_types(k.dtype, torch.float32))
    gathered, _ = over_all_tokens(scores, v, ranks)
    return softmax(logits) @ gathered.to(k.dtype)


def volume(work: Work, ranks: int) -> Volume:
    """b·h·m·d + 2·b·h·m numbers forward, all but the b·h·m largest scores backward."""
    heads, m, item = work.b * work.h, work.m or 0, wide(work.itemsize)
    sums = Volume(summed=heads * m * (work.d + 1) * item, rounds=1)
    return both_ways(sums + Volume(summed=heads * m * item, rounds=1), work.phase, backward=sums)

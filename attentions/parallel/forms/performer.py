"""Performer: what each feature gathers is a softmax over all tokens; b·h·m·(d+2) numbers forward, whatever n is."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Work
from attentions.parallel.cost import Volume, both_ways, wide
from attentions.parallel.ranks import Ranks
from attentions.parallel.softmax import over_all_tokens


def attend(
    core: nn.Module,
    ranks: Ranks,
    q: Float[Tensor, "b h part d"],
    k: Float[Tensor, "b h part d"],
    v: Float[Tensor, "b h part d"],
    features: Float[Tensor, "m d"],
) -> Float[Tensor, "b h part d"]:
    """This rank's tokens of attentions.variants.performer.reference over the tokens of all ranks.

    The features are a buffer: equal on all ranks where they were built from one seed or loaded from one state.
    """
    precise = torch.promote_types(k.dtype, torch.float32)
    directions = (features * q.shape[-1] ** -0.25).to(q.dtype)
    half_lengths = torch.linalg.vector_norm(k, dim=-1, dtype=precise).square() / (2 * math.sqrt(k.shape[-1]))
    logits = (directions @ k.transpose(-2, -1)).to(precise) - half_lengths.unsqueeze(-2)
    centres, mass = over_all_tokens(logits, v, ranks)
    weights = torch.softmax((q @ directions.transpose(-2, -1)).to(precise) + mass.unsqueeze(-2), dim=-1)
    return weights.to(q.dtype) @ centres.to(q.dtype)


def volume(work: Work, ranks: int) -> Volume:
    """b·h·m·(d+2) numbers forward, all but the b·h·m largest logits backward."""
    each = work.b * work.h * (work.m or 0) * wide(work.itemsize)
    sums = Volume(summed=each * (work.d + 1), rounds=1)
    return both_ways(sums + Volume(summed=each, rounds=1), work.phase, backward=sums)

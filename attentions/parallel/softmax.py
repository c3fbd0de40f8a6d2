"""Softmax over the tokens of all ranks, applied to their values: all-reduces of m and of m·(d+1) numbers a head."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from attentions.parallel.ranks import Ranks


def over_all_tokens(
    scores: Float[Tensor, "b h m part"], v: Float[Tensor, "b h part d"], ranks: Ranks
) -> tuple[Float[Tensor, "b h m d"], Float[Tensor, "b h m"]]:
    """softmax(scores) v over the tokens of all ranks, and the log-sum-exp of the scores; both in the scores' dtype.

    The largest score only keeps the exponentials in range; no result depends on it, nor does a gradient. scores: this
    rank's columns, in at least float32.
    """
    nothing = scores.new_full((*scores.shape[:-1], 1), -math.inf)  # a rank without tokens has no largest score
    largest = ranks.largest(torch.cat([scores.detach(), nothing], dim=-1).amax(dim=-1, keepdim=True))
    weights = (scores - largest).exp()
    sums = (weights.to(v.dtype) @ v).to(scores.dtype)
    both = ranks.total(torch.cat([sums, weights.sum(dim=-1, keepdim=True)], dim=-1))
    sums, total = both.split([v.shape[-1], 1], dim=-1)
    return sums / total, (largest + total.log()).squeeze(-1)

"""What options of anchor attention make of its keys, before any backend sees them or beside what it sees."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def sharpened(k: Float[Tensor, "b h n d"], sharpness: Float[Tensor, " h"]) -> Float[Tensor, "b h n d"]:
    """k at length √d · exp(sharpness) for each head; a token of length zero stays zero. Lengths in float32 at least.

    Cost: one pass over k, b·h·n·d elements.
    """
    wide = torch.promote_types(k.dtype, torch.float32)
    length = torch.linalg.vector_norm(k, dim=-1, keepdim=True, dtype=wide)
    target = math.sqrt(k.shape[-1]) * sharpness.to(wide).exp()
    return k * (target.view(-1, 1, 1) / length.clamp_min(torch.finfo(wide).tiny ** 0.5)).to(k.dtype)


def tempered(
    k: Float[Tensor, "b h n d"], temper: Float[Tensor, " h"], weight: Float[Tensor, " d"] | None
) -> Float[Tensor, "b h n d"]:
    """k over each token's temperature exp(temper + weight · k), in float32 at least; weight None: over each head's.

    Cost: one pass over k; with a weight 2·b·h·n·d FLOPs.
    """
    wide = torch.promote_types(k.dtype, torch.float32)
    log = temper.to(wide).view(-1, 1, 1)
    if weight is not None:
        log = log + (k @ weight.to(k.dtype).unsqueeze(-1)).to(wide)
    return k * torch.exp(-log).to(k.dtype)


def importances(k: Float[Tensor, "b h n d"], weight: Float[Tensor, "h d"]) -> Float[Tensor, "b h n"]:
    """weight · k of each token, the logarithm of how many times it counts: in float32 at least, under autocast too, for
    a rounded logarithm of 8 would be a count that is 3 % off.

    Cost: 2·b·h·n·d FLOPs; narrow types are copied.
    """
    wide = torch.promote_types(k.dtype, torch.float32)
    with torch.autocast(k.device.type, enabled=False):
        return (k.to(wide) @ weight.to(wide).unsqueeze(-1)).squeeze(-1)

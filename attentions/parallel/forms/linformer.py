"""Linformer: E k and F v are sums over the tokens, one all-reduce of 2·b·h·m·d floats forward and one backward.

Every rank holds the whole projections, (m, n), and uses the columns of its own tokens; only these get a gradient here.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from attentions.base import AttentionError, Work
from attentions.parallel.cost import Volume, both_ways, wide
from attentions.parallel.ranks import Ranks
from attentions.variants.linformer import Linformer


def attend(
    core: Linformer,
    ranks: Ranks,
    q: Float[Tensor, "b h part d"],
    k: Float[Tensor, "b h part d"],
    v: Float[Tensor, "b h part d"],
    *first: Tensor,
) -> Float[Tensor, "b h part d"]:
    """softmax(q (E k)ᵀ / √d) (F v) of this rank's queries, keys and values from all ranks.

    first: the first columns of E and F, which the module gives and which are another rank's. Raises AttentionError
    where all ranks together hold more tokens than the projections were built for.
    """
    sizes = ranks.sizes(k)
    if sum(sizes) > core.tokens:
        raise AttentionError(
            f"linformer: the ranks hold {sum(sizes)} tokens and the projection was built for at most {core.tokens}; "
            f"build it with tokens={sum(sizes)}"
        )
    start = sum(sizes[: ranks.rank])
    mine = slice(start, start + sizes[ranks.rank])
    if core.sharing in ("key_value", "layerwise"):
        e = f = core.projection[..., mine]
    else:
        e, f = core.key_projection[..., mine], core.value_projection[..., mine]
    scale = 1 / math.sqrt(q.shape[-1])
    both = torch.stack([_mixed(e, k), _mixed(f, v)])
    keys, values = ranks.total(both.to(torch.promote_types(both.dtype, torch.float32))).to(q.dtype)
    return torch.softmax(q @ (keys * scale).transpose(-2, -1), dim=-1) @ values


def volume(work: Work, ranks: int) -> Volume:
    """2·b·h·m·d numbers each way."""
    each = 2 * work.b * work.h * (work.m or 0) * work.d * wide(work.itemsize)
    return both_ways(Volume(summed=each, rounds=1), work.phase)


def _mixed(matrix: Tensor, tokens: Tensor) -> Float[Tensor, "b h m d"]:
    axes = "mn,bhnd->bhmd" if matrix.dim() == 2 else "hmn,bhnd->bhmd"
    return torch.einsum(axes, matrix.to(tokens.dtype), tokens)

"""Eager pieces that several variants are made of.

weights = softmax_weights(q, k)                      # (b, h, i, d), (b, h, j, d) → (b, h, i, j), rows sum to one
means = segment_means(x, 2)                          # (b, h, 5, d) → (b, h, 2, d): tokens 0, 1 and tokens 2, 3, 4
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from attentions.base import Work


def softmax_weights(q: Float[Tensor, "b h i d"], k: Float[Tensor, "b h j d"]) -> Float[Tensor, "b h i j"]:
    """softmax(q kᵀ / √d) over the last axis, in at least float32; the factor goes to the smaller of the two."""
    factor = 1 / math.sqrt(q.shape[-1])
    q, k = (q * factor, k) if q.shape[-2] < k.shape[-2] else (q, k * factor)
    wide = torch.promote_types(q.dtype, torch.float32)
    return torch.softmax(q @ k.transpose(-2, -1), dim=-1, dtype=wide).to(q.dtype)


def softmax_bytes(work: Work, scores: int, *, matrices: int) -> int:
    """Bytes of `matrices` matrices of that many scores in at least float32, beside one in the inputs' precision."""
    narrow = work.itemsize
    return scores * (matrices * max(narrow, 4) + (narrow if narrow < 4 else 0))


def segment_means(x: Float[Tensor, "b h n d"], m: int) -> Float[Tensor, "b h m d"]:
    """Means of m consecutive segments: the first (⌊n/m⌋ + 1)·m − n of ⌊n/m⌋ tokens, the rest of one more.

    No token is padded or counted twice. m is at most n.
    """
    n = x.shape[-2]
    length = n // m
    short = (length + 1) * m - n
    first, rest = x.split((short * length, n - short * length), dim=-2)
    parts = (first.unflatten(-2, (short, length)), rest.unflatten(-2, (m - short, length + 1)))
    return torch.cat([part.mean(dim=-2) for part in parts], dim=-2)

"""Eager pieces that several variants are made of.

weights = softmax_weights(q, k)                      # (b, h, i, d), (b, h, j, d) → (b, h, i, j), rows sum to one
means = segment_means(x, 2)                          # (b, h, 5, d) → (b, h, 2, d): tokens 0, 1 and tokens 2, 3, 4
out = heads_apart(softmax_weights(heads_together(q, k), k) @ v, q)    # grouped: no head of k or v is repeated
near = depthwise(v, weight)                          # (b, h, n, d), (h, 1, 3, 1) → (b, h, n, d): a filter a head
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# The dtypes that this CPU has no convolution for: float16 on most, bfloat16 without arithmetic for it.
UNCONVOLVED = (torch.float16, *(() if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (torch.bfloat16,)))
PARTS = 8  # of the head dimension, whose float32 copies are held one after the other


def softmax_weights(
    q: Float[Tensor, "b h i d"], k: Float[Tensor, "b h j d"], *, causal: bool = False
) -> Float[Tensor, "b h i j"]:
    """softmax(q kᵀ / √d) over the last axis; the factor goes to the smaller of the two.

    causal: query i of j sees keys ≤ i; queries of several heads may follow each other, as from `heads_together`.
    """
    factor = 1 / math.sqrt(q.shape[-1])
    q, k = (q * factor, k) if q.shape[-2] < k.shape[-2] else (q, k * factor)
    if causal:
        return softmax(without_later(q @ k.transpose(-2, -1)))
    return softmax(q @ k.transpose(-2, -1))


def without_later(scores: Float[Tensor, "*batch i j"]) -> Float[Tensor, "*batch i j"]:
    """−∞ in the place of every key after the query; i is a multiple of j, head below head."""
    j = scores.shape[-1]
    later = torch.ones(j, j, dtype=torch.bool, device=scores.device).triu_(1)
    return scores.unflatten(-2, (scores.shape[-2] // j, j)).masked_fill(later, -math.inf).flatten(-3, -2)


def softmax(scores: Float[Tensor, "*batch j"]) -> Float[Tensor, "*batch j"]:
    """Over the last axis, in the scores' dtype, computed in at least float32.

    PyTorch's softmax of a 16-bit tensor takes exponentials and sums in float32 by itself and rounds once, as it stores.
    Asked for a float32 result to be rounded afterwards it gives the same numbers, for two more passes over memory and
    twice the bytes. Under autocast it returns float32 whatever it is given, which is rounded here.
    """
    return torch.softmax(scores, dim=-1).to(scores.dtype)


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


def heads_together(q: Float[Tensor, "b h n d"], k: Float[Tensor, "b g j e"]) -> Float[Tensor, "b g rn d"]:
    """The queries of the r = h / g heads that share a head of k, one head below the other: as many rows of one head.

    No copy where q is contiguous, and q itself where every head has keys of its own.
    """
    h, g = q.shape[1], k.shape[1]
    return q if h == g else q.unflatten(1, (g, h // g)).flatten(2, 3)


def heads_apart(out: Float[Tensor, "b g rn e"], q: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n e"]:
    """The inverse: each head of q by itself."""
    h, g = q.shape[1], out.shape[1]
    return out if h == g else out.unflatten(2, (h // g, out.shape[2] // (h // g))).flatten(1, 2)


def heads_repeated(k: Float[Tensor, "b g j d"], h: int) -> Float[Tensor, "b h j d"]:
    """k with each head once for every head of queries that shares it: a copy, or k itself where there is one each."""
    return k if k.shape[1] == h else k.repeat_interleave(h // k.shape[1], dim=1)


def blocks_together(q: Float[Tensor, "b h n d"], k: Float[Tensor, "b g j e"], size: int) -> Float[Tensor, "b g c rs d"]:
    """`heads_together` of each block of `size` tokens, the last one filled with zeros."""
    h, g = q.shape[1], k.shape[1]
    q = filled(q, size)
    blocks = q.unflatten(-2, (q.shape[-2] // size, size))  # (b, h, c, s, d)
    return blocks if h == g else blocks.unflatten(1, (g, h // g)).transpose(2, 3).flatten(3, 4)


def filled(x: Float[Tensor, "b h n d"], size: int, value: float = 0.0) -> Float[Tensor, "b h whole d"]:
    """x with tokens of `value` after its last, up to a multiple of `size`; x itself where there is nothing to add."""
    missing = -x.shape[-2] % size
    return F.pad(x, (0, 0, 0, missing), value=value) if missing else x


def blocks_apart(out: Float[Tensor, "b g c rs e"], q: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n e"]:
    """The inverse: each head of q by itself, without what filled the last block."""
    h, g = q.shape[1], out.shape[1]
    if h != g:
        out = out.unflatten(3, (h // g, out.shape[3] // (h // g))).transpose(2, 3).flatten(1, 2)
    return out.flatten(2, 3)[..., : q.shape[-2], :]


def depthwise(
    v: Float[Tensor, "b h n d"], weight: Float[Tensor, "h 1 kernel across"], *, columns: int = 1
) -> Float[Tensor, "b h n d"]:
    """Each head's filter over its tokens, or over the grid of `columns` that they are row by row; centred, zeros beyond
    the ends.
    """
    b, h, n, d = v.shape
    padding, weight = (weight.shape[-2] // 2, weight.shape[-1] // 2), weight.to(v.dtype)
    if v.device.type != "cpu" and columns == 1:
        return F.conv2d(v, weight, padding=padding, groups=h)
    if v.device.type == "cpu" and v.dtype in UNCONVOLVED:  # it would convolve by a matrix of all shifts
        parts = v.split(max(1, d // PARTS), dim=-1)
        near = (depthwise(part.float(), weight.float(), columns=columns).to(v.dtype) for part in parts)
        return torch.cat(list(near), dim=-1)
    # A channel for each head and dimension, innermost in memory: oneDNN's quickest order by far, and with one channel
    # and a filter longer than the input its weight gradient writes out of bounds.
    image = v.transpose(1, 2).reshape(b, n // columns, columns, h * d).permute(0, 3, 1, 2)
    filters = weight.unsqueeze(1).expand(-1, d, -1, -1, -1).flatten(0, 1)
    near = F.conv2d(image, filters, padding=padding, groups=h * d)
    return near.permute(0, 2, 3, 1).reshape(b, n, h, d).transpose(1, 2)

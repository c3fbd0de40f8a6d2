"""Means of consecutive segments of all tokens: each rank adds up its parts, one all-reduce joins them.

q_means, k_means = segment_means([q, k], 64, ranks, sizes)         # (b, h, part, d) each → (b, h, 64, d) each
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from attentions.parallel.ranks import Ranks


def segment_means(tensors: Sequence[Tensor], m: int, ranks: Ranks, sizes: Sequence[int]) -> Sequence[Tensor]:
    """As attentions.eager.segment_means, of each tensor, over the tokens of all ranks; in at least float32."""
    start = sum(sizes[: ranks.rank])
    lengths = segment_lengths(sum(sizes), m)
    overlaps = list(_overlaps(lengths, start, start + sizes[ranks.rank]))
    wide = torch.promote_types(tensors[0].dtype, torch.float32)
    partial = torch.stack([_sums(tensor, overlaps, m, wide) for tensor in tensors])
    divisor = torch.tensor(lengths, dtype=wide, device=partial.device).unsqueeze(-1)
    return (ranks.total(partial) / divisor).unbind()


def segment_lengths(n: int, m: int) -> list[int]:
    """Tokens in each of the m segments: the first (⌊n/m⌋ + 1)·m − n hold ⌊n/m⌋, the rest one more."""
    short = (n // m + 1) * m - n
    return [n // m] * short + [n // m + 1] * (m - short)


def _overlaps(lengths: Sequence[int], start: int, end: int) -> Iterator[tuple[int, int]]:
    """(segment, how many of its tokens lie in start … end), for the segments that have any there."""
    for segment, last in enumerate(accumulate(lengths)):
        inside = min(last, end) - max(last - lengths[segment], start)
        if inside > 0:
            yield segment, inside


def _sums(x: Tensor, overlaps: Sequence[tuple[int, int]], m: int, dtype: torch.dtype) -> Tensor:
    """(b, h, part, d) → (b, h, m, d): this rank's part of each segment's sum, zero where it holds nothing of it.

    Neighbouring segments of equal length here are summed in one reduction: at most four.
    """
    if not overlaps:
        return x.sum(dim=-2, keepdim=True, dtype=dtype).expand(-1, -1, m, -1)  # zeros, and part of the graph
    parts, at = [], 0
    for length, run in groupby(inside for _, inside in overlaps):
        count = len(list(run))
        piece = x[..., at : at + count * length, :].unflatten(-2, (count, length))
        parts.append(piece.sum(dim=-2, dtype=dtype))
        at += count * length
    first, last = overlaps[0][0], overlaps[-1][0]
    return F.pad(torch.cat(parts, dim=-2), (0, 0, first, m - 1 - last))

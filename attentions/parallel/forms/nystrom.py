"""Nyström attention: sums over segments, a softmax over all tokens and the convolution's edges, whatever n is.

Forward, each rank's part: all-reduce of 2·b·h·m·d floats (segment sums of q and k), of b·h·m (the largest score of each
landmark) and of b·h·m·(d+1) (its weights' sum and their product with v); and kernel//2 tokens of v to each neighbour.
Backward: the sums again and the tokens back. The m × m pseudo-inverse is computed by every rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Work
from attentions.parallel import ring
from attentions.parallel.cost import Volume, both_ways, wide
from attentions.parallel.ranks import Ranks
from attentions.variants.nystrom import depthwise, pseudo_inverse


def attend(
    core: nn.Module,
    ranks: Ranks,
    q: Float[Tensor, "b h part d"],
    k: Float[Tensor, "b h part d"],
    v: Float[Tensor, "b h part d"],
    weight: Float[Tensor, "h 1 kernel 1"] | None,
    *,
    landmarks: int,
    iterations: int,
) -> Float[Tensor, "b h part d"]:
    """This rank's tokens of attentions.variants.nystrom.reference over the tokens of all ranks.

    Where landmarks ≥ all tokens it is exact attention, by the ring.
    """
    sizes = ranks.sizes(q)
    if landmarks >= sum(sizes):
        out = ring.attend(q, k, v, ranks, sizes, ring.EAGER)
    else:
        precise = torch.promote_types(q.dtype, torch.float32)
        q_means, k_means = _means(q, k, landmarks, ranks, sizes)
        inverse = pseudo_inverse(_softmax(q_means, k_means), iterations)
        mixed = inverse @ _over_all_tokens(q_means.to(q.dtype), k, v, ranks, precise)
        out = _softmax(q, k_means.to(q.dtype)).to(q.dtype) @ mixed.to(q.dtype)
    if weight is None:
        return out
    width = weight.shape[-2] // 2
    left, right = ranks.halo(v, width, sizes)
    if not v.shape[-2]:
        return out
    return out + depthwise(torch.cat([left, v, right], dim=-2), weight)[:, :, width : width + v.shape[-2]]


def volume(work: Work, ranks: int) -> Volume:
    """3·b·h·m·d + 2·b·h·m numbers summed forward, all but the b·h·m largest scores backward; and the halo each way.

    What a rank passes to its neighbours is the mean over the ranks: the sequence's two ends have no neighbour.
    """
    heads, m, item = work.b * work.h, work.m or 0, wide(work.itemsize)
    kernel = work.options["residual_kernel"]
    lent = 2 * sum(min(kernel // 2, rank * (work.n // ranks)) for rank in range(ranks))  # tokens, of all ranks
    halo = Volume(passed=lent * heads * work.d * work.itemsize // ranks, rounds=1 if kernel else 0)
    if m >= work.n:
        return both_ways(halo, work.phase) + ring.volume(work, ranks)
    sums = Volume(summed=heads * m * (3 * work.d + 1) * item, rounds=2)
    return both_ways(sums + halo + Volume(summed=heads * m * item, rounds=1), work.phase, backward=sums + halo)


def _softmax(q: Float[Tensor, "b h i d"], k: Float[Tensor, "b h j d"]) -> Float[Tensor, "b h i j"]:
    """softmax(q kᵀ / √d) over the last axis, in at least float32."""
    scores = q @ (k / math.sqrt(k.shape[-1])).transpose(-2, -1)
    return torch.softmax(scores, dim=-1, dtype=torch.promote_types(q.dtype, torch.float32))


def _means(q: Tensor, k: Tensor, m: int, ranks: Ranks, sizes: Sequence[int]) -> Sequence[Tensor]:
    """The landmarks: means over m segments of all tokens, (b, h, m, d) each, in at least float32."""
    n, start = sum(sizes), sum(sizes[: ranks.rank])
    lengths = segment_lengths(n, m)
    overlaps = list(_overlaps(lengths, start, start + sizes[ranks.rank]))
    precise = torch.promote_types(q.dtype, torch.float32)
    partial = torch.stack([_segment_sums(x, overlaps, m, precise) for x in (q, k)])
    divisor = torch.tensor(lengths, dtype=precise, device=q.device).unsqueeze(-1)
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


def _segment_sums(x: Tensor, overlaps: Sequence[tuple[int, int]], m: int, dtype: torch.dtype) -> Tensor:
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


def _over_all_tokens(q_means: Tensor, k: Tensor, v: Tensor, ranks: Ranks, precise: torch.dtype) -> Tensor:
    """softmax(q̃ kᵀ / √d) v with the softmax over the tokens of all ranks: (b, h, m, d), in at least float32.

    The largest score only keeps the exponentials in range; the result does not depend on it, nor does a gradient.
    """
    scores = ((q_means / math.sqrt(k.shape[-1])) @ k.transpose(-2, -1)).to(precise)
    nothing = scores.new_full((*scores.shape[:-1], 1), -math.inf)  # a rank without tokens has no largest score
    largest = ranks.largest(torch.cat([scores.detach(), nothing], dim=-1).amax(dim=-1, keepdim=True))
    weights = (scores - largest).exp()
    sums = (weights.to(v.dtype) @ v).to(precise)
    both = ranks.total(torch.cat([sums, weights.sum(dim=-1, keepdim=True)], dim=-1))
    sums, total = both.split([v.shape[-1], 1], dim=-1)
    return sums / total

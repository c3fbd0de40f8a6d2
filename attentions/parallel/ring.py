"""Exact softmax attention around a ring: every rank's keys and values pass every other rank, 2·b·h·n·d elements.

    out = ring.attend(q, k, v, ranks, sizes, ring.EAGER)

Each rank keeps its queries. A block of keys and values is computed with while the next one is on its way; the blocks'
results are merged by their log-sum-exps. Backward sends the blocks round a second time, and with each block the sums
of its gradients, which end at its owner.

Source: Liu et al. 2023, arXiv 2310.01889 (ring); Milakov and Gimelshein 2018, arXiv 1805.02867 (merging).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attentions.base import Work
from attentions.parallel.cost import Volume, both_ways, wide
from attentions.parallel.ranks import Pending, Ranks


@dataclass(frozen=True)
class Block:
    """Attention of some queries over one block of keys: forward gives the output and each query's log-sum-exp;
    backward, from the output and log-sum-exp over all blocks, the block's share of the gradients of q, k and v."""

    forward: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    backward: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def attend(
    q: Float[Tensor, "b h part d"],
    k: Float[Tensor, "b h part d"],
    v: Float[Tensor, "b h part d"],
    ranks: Ranks,
    sizes: Sequence[int],
    block: Block,
) -> Float[Tensor, "b h part d"]:
    """softmax(q kᵀ / √d) v of this rank's queries over the keys and values of all ranks; sums in at least float32."""
    return _Ring.apply(q, k, v, ranks, tuple(sizes), block)


def volume(work: Work, ranks: int) -> Volume:
    """Forward 2·b·h·n·d·(P−1)/P elements; backward those again, and 2·b·h·n·d sums of gradients in float32."""
    block = 2 * work.tokens * work.d // ranks
    once = Volume(passed=(ranks - 1) * block * work.itemsize, rounds=ranks - 1)
    if ranks == 1:
        return Volume()
    gradients = Volume(passed=ranks * block * wide(work.itemsize), rounds=ranks)
    return both_ways(once, work.phase, backward=once + gradients)


class _Ring(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, ranks: Ranks, sizes: tuple[int, ...], block: Block
    ) -> Tensor:
        out = torch.zeros_like(q, dtype=torch.promote_types(q.dtype, torch.float32))
        lse = out.new_full(q.shape[:-1], -math.inf)
        held = torch.stack([k, v])
        for step in range(ranks.count):
            pending = _rotate(held, ranks, sizes, step) if step < ranks.count - 1 else None
            if held.numel() and q.numel():
                part, part_lse = block.forward(q, held[0], held[1])
                merged = torch.logaddexp(lse, part_lse)
                out.mul_((lse - merged).exp_().unsqueeze(-1))
                out.add_(part * (part_lse - merged).exp_().unsqueeze(-1))
                lse = merged
            if pending:
                held = pending.wait()
        out = out.to(q.dtype)
        ctx.ranks, ctx.sizes, ctx.block = ranks, sizes, block
        ctx.save_for_backward(q, k, v, out, lse)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        ranks, sizes = ctx.ranks, ctx.sizes
        grad = grad.contiguous()
        dq = torch.zeros_like(q, dtype=lse.dtype)
        held, sums = torch.stack([k, v]), None
        for step in range(ranks.count):
            pending = _rotate(held, ranks, sizes, step) if step < ranks.count - 1 else None
            mine = torch.zeros_like(held, dtype=lse.dtype)
            if held.numel() and q.numel():
                share, mine[0], mine[1] = ctx.block.backward(grad, q, held[0], held[1], out, lse)
                dq.add_(share)
            if sums is not None:  # what the ranks before this one have added for the block held now
                mine.add_(sums.wait())
            sums = _rotate(mine, ranks, sizes, step)
            if pending:
                held = pending.wait()
        assert sums is not None
        dk, dv = sums.wait().to(k.dtype)
        return dq.to(q.dtype), dk, dv, None, None, None


def _rotate(held: Tensor, ranks: Ranks, sizes: Sequence[int], step: int) -> Pending:
    """Pass the block held at `step` on, and expect the one of the rank before."""
    arriving = sizes[(ranks.rank - step - 1) % ranks.count]
    return ranks.send(held, (*held.shape[:-2], arriving, held.shape[-1]))


def _eager(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The block's scores materialised, in at least float32."""
    scores = _scores(q, k)
    lse = torch.logsumexp(scores, dim=-1)
    return scores.sub_(lse.unsqueeze(-1)).exp_().to(q.dtype) @ v, lse


def _eager_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    weights = _scores(q, k).sub_(lse.unsqueeze(-1)).exp_()
    mean = (grad.to(lse.dtype) * out).sum(dim=-1, keepdim=True)
    dv = weights.to(q.dtype).transpose(-2, -1) @ grad
    dscores = weights.mul_((grad @ v.transpose(-2, -1)).to(lse.dtype).sub_(mean)).mul_(1 / math.sqrt(q.shape[-1]))
    dscores = dscores.to(q.dtype)
    return dscores @ k, dscores.transpose(-2, -1) @ q, dv


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1)).to(torch.promote_types(q.dtype, torch.float32)).mul_(1 / math.sqrt(q.shape[-1]))


EAGER = Block(_eager, _eager_backward)

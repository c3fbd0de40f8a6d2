"""Anchor attention on the CPU, a block of tokens at a time, so that the weights A stay in cache.

    out = chunked(k, v, anchors)        # (b, h, n, d), (b, h, n, d), (m, d) → (b, h, n, d)

The reference writes and reads several (b, h, n, m) tensors, which past a few thousand tokens means memory that was
never touched before. Here a block's logits and weights live in two buffers of about BLOCK_BYTES that are used again for
the next block. The second pass forms A again, so forward executes 8·b·h·n·m·d FLOPs instead of 6, backward 16 instead
of 12 (the formulas are in __init__.py); it allocates O(b·h·m·d) beside inputs and outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK_BYTES = 2**21  # of one buffer: docs/performance.md, "The CPU", has what other sizes take


def chunked(
    k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"], anchors: Float[Tensor, "m d"]
) -> Float[Tensor, "b h n d"]:
    """O = A (Δ⁻¹ (Aᵀ v)), in blocks of tokens; differentiable once, deterministic.

    Cost: 8·b·h·n·m·d FLOPs forward, 16 backward; O(b·h·m·d) elements beside inputs and outputs.
    Source: Shan et al. 2025, arXiv 2505.16463.
    """
    return _Chunked.apply(k, v, anchors)


class _Chunked(torch.autograd.Function):
    """Saves k, v, the anchors, W and δ; A is formed again."""

    @staticmethod
    def forward(ctx: Any, k: Tensor, v: Tensor, anchors: Tensor) -> Tensor:
        work = _Work(k, anchors)
        means, degree = work.gather(v)
        wide = degree.unsqueeze(-1)
        means = torch.where(wide > 0, means / wide, 0).to(k.dtype)
        out = torch.empty_like(k)
        for at in work.blocks():
            torch.bmm(work.weights(at), means[at[:2]], out=_block(out, at))
        ctx.save_for_backward(k, v, anchors, means, degree)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        k, v, anchors, means, degree = ctx.saved_tensors
        g = g if g.stride(-1) == 1 else g.contiguous()
        work = _Work(k, anchors)
        sums, _ = work.gather(g)
        wide = degree.unsqueeze(-1)
        inverse = torch.where(wide > 0, 1 / wide, 0)
        grad_degree = -(sums * means).sum(-1) * inverse.squeeze(-1)
        grad_sums = (sums * inverse).to(k.dtype)
        grad_k, grad_v = torch.empty_like(k), torch.empty_like(v)
        grad_anchors = torch.zeros(anchors.shape, dtype=work.wide, device=k.device)
        for at in work.blocks():
            a, of = work.weights(at), at[:2]
            torch.bmm(a, grad_sums[of], out=_block(grad_v, at))
            da = torch.bmm(g[at], means[of].transpose(1, 2))
            da.baddbmm_(v[at], grad_sums[of].transpose(1, 2)).add_(grad_degree[of].unsqueeze(1).to(da.dtype))
            da.sub_((a * da).sum(-1, keepdim=True, dtype=work.wide).to(da.dtype)).mul_(a)
            block = _block(grad_k, at)
            torch.baddbmm(block, da, work.anchors.expand(len(da), -1, -1), beta=0, alpha=work.scale, out=block)
            grad_anchors += torch.bmm(da.transpose(1, 2), k[at]).sum(0, dtype=work.wide)
        return grad_k, grad_v, grad_anchors.mul_(work.scale).to(anchors.dtype)


class _Work:
    """The blocks of one problem and the buffers that they share."""

    def __init__(self, k: Tensor, anchors: Tensor) -> None:
        self.k, self.anchors = k, anchors.to(k.dtype)
        self.b, self.h, self.n, d = k.shape
        self.m, self.scale = len(anchors), 1 / math.sqrt(d)
        self.wide = torch.promote_types(k.dtype, torch.float32)
        rows = max(1, BLOCK_BYTES // (self.m * k.element_size()))
        self.tokens = min(self.n, rows)
        self.heads = max(1, min(self.h, rows // max(1, self.n)))
        self.logits, self.softmax = (k.new_empty(self.heads * self.tokens * self.m) for _ in range(2))

    def blocks(self) -> Iterator[tuple[int, slice, slice]]:
        """Indices of (heads, tokens, ·) blocks: several whole heads where they are short, else parts of one."""
        for image in range(self.b):
            for head in range(0, self.h, self.heads):
                for token in range(0, self.n, self.tokens):
                    heads = slice(head, min(head + self.heads, self.h))
                    yield image, heads, slice(token, min(token + self.tokens, self.n))

    def weights(self, at: tuple[int, slice, slice]) -> Tensor:
        """A of a block, (heads, tokens, m), in a buffer that the next call overwrites."""
        k = self.k[at]
        shape = (k.shape[0], k.shape[1], self.m)
        logits, softmax = (x[: math.prod(shape)].view(shape) for x in (self.logits, self.softmax))
        u = self.anchors.t().expand(len(k), -1, -1)
        torch.baddbmm(logits, k, u, beta=0, alpha=self.scale, out=logits)
        return torch.softmax(logits, -1, out=softmax)

    def gather(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Aᵀv (b, h, m, d) and Aᵀ1 (b, h, m)."""
        sums = torch.zeros(self.b, self.h, self.m, v.shape[-1], dtype=self.wide, device=v.device)
        degree = torch.zeros(self.b, self.h, self.m, dtype=self.wide, device=v.device)
        for at in self.blocks():
            a, of = self.weights(at), at[:2]
            degree[of] += a.sum(1, dtype=self.wide)
            if self.wide == v.dtype:
                sums[of].baddbmm_(a.transpose(1, 2), v[at])
            else:
                sums[of] += torch.bmm(a.transpose(1, 2), v[at])
        return sums, degree


def _block(tensor: Tensor, at: tuple[int, slice, slice]) -> Tensor:
    return tensor[at]

"""Anchor attention on the CPU, a block of tokens at a time, so that the weights A stay in cache.

    out = chunked(k, v, anchors)        # (b, h, n, d), (b, h, n, d), (m, d) → (b, h, n, d)

The reference writes and reads several (b, h, n, m) tensors, which past a few thousand tokens means memory that was
never touched before. Here a block's logits and weights live in two buffers of about BLOCK_BYTES that are used again for
the next block. The second pass forms A again, so forward executes 8·b·h·n·m·d FLOPs instead of 6, backward 16 instead
of 12 (the formulas are in __init__.py); it allocates O(b·h·(m·d + n)) beside inputs and outputs,
and for `excluded` p in backward.

With t_i how many times token i counts, r = Δ⁻¹1, and for `excluded` q_i = Σ_a A_ia² r_a and e = 1 − t q, else q = 0 and
e = 1: M = r Aᵀ(t v) and O = (A M − t q v) / e. From the gradient g of O, with p = g / e and y_i = p_i · (O_i − v_i):

    Ŝ = Aᵀ p    D = −r (Σ_d Ŝ M + r Aᵀ²(t y))    P = v (r Ŝ)ᵀ + D
    dv = t (A (r Ŝ) − q p)    dt = Σ_a A P + q y    dA = t P + p Mᵀ + 2 t y A r
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attentions.kernels.anchor.options import LEAST_OTHERS, counted

BLOCK_BYTES = 2**21  # of one buffer: docs/performance.md, "The CPU", has what other sizes take
At = tuple[int, slice, slice]


def chunked(
    k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"], anchors: Float[Tensor, "*heads m d"],
    bias: Float[Tensor, "*heads m"] | None = None, importance: Float[Tensor, "b h n"] | None = None, *,
    excluded: bool = False,
) -> Float[Tensor, "b h n d"]:  # fmt: skip
    """O = A (Δ⁻¹ (Aᵀ v)), in blocks of tokens, with the reference's options; differentiable once, deterministic.

    Cost: 8·b·h·n·m·d FLOPs forward, 16 backward; `excluded` adds 2·b·h·n·m to each.
    Source: Shan et al. 2025, arXiv 2505.16463.
    """
    times = None if importance is None else counted(importance)
    if times is not None and not excluded:
        times = times.to(v.dtype)  # rounded for sums and degrees alike
    return _Chunked.apply(k, v, anchors, bias, times, excluded)


class _Chunked(torch.autograd.Function):
    """Saves k, v, t, the anchors, M and r, and for `excluded` q and O; A is formed again."""

    @staticmethod
    def forward(
        ctx: Any, k: Tensor, v: Tensor, anchors: Tensor, bias: Tensor | None, times: Tensor | None, excluded: bool
    ) -> Tensor:
        work = _Work(k, anchors, bias, wide=excluded)  # what is left without the own share may be small
        sums, degree = work.gather(v, times)
        inverse = torch.where(degree > 0, 1 / degree, 0)
        means, out = (sums * inverse).to(work.inner), torch.empty_like(k)
        own = torch.empty(*k.shape[:-1], 1, dtype=work.wide, device=k.device) if excluded else None
        for at in work.blocks():
            a, of = work.weights(at), at[:2]
            if own is None:
                _bmm(a, means[of], out[at])
                continue
            share = torch.bmm(work.times(a, a), inverse[of], out=own[at])
            if times is not None:
                share = share * times[at]
            out[at] = torch.bmm(a, means[of]).addcmul_(share, v[at].to(work.inner), value=-1).div_(_others(share))
        ctx.save_for_backward(k, v, anchors, bias, times, means, inverse, own, out if excluded else None)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        k, v, anchors, bias, times, means, inverse, own, out = ctx.saved_tensors
        g = g if g.stride(-1) == 1 else g.contiguous()
        work = _Work(k, anchors, bias, wide=own is not None)
        of_own = None
        if own is not None:
            g, of_own = work.of_others(g, v, out, own if times is None else own * times)
        counts = of_own if of_own is None or times is None else of_own * times
        sums, squares = work.gather(g, squared=counts)
        grad_degree = -(sums * means).sum(-1, keepdim=True) * inverse
        if counts is not None:
            grad_degree -= squares * inverse * inverse
        grad_sums, grad_degree = (sums * inverse).to(work.inner), grad_degree.to(work.inner).transpose(2, 3)
        grad_k, grad_v = torch.empty_like(k), torch.empty_like(v)
        grad_times: Any = None if times is None else torch.empty_like(times)
        scaled = work.anchors * work.scale
        grad_anchors = torch.zeros(work.h, *anchors.shape[-2:], dtype=work.wide, device=k.device)
        grad_bias: Any = None if bias is None else torch.zeros(work.h, work.m, dtype=work.wide, device=k.device)
        for at in work.blocks():
            a, of = work.weights(at), at[:2]
            dv = _bmm(a, grad_sums[of], grad_v[at])
            da = torch.baddbmm(grad_degree[of], v[at].to(work.inner), grad_sums[of].transpose(1, 2))
            if times is not None:
                grad_times[at] = work.times(a, da).sum(-1, keepdim=True, dtype=work.wide)
                da *= times[at]
            da.baddbmm_(g[at], means[of].transpose(1, 2))
            if own is not None and of_own is not None and counts is not None:
                dv.addcmul_(own[at], g[at], value=-1)
                da.addcmul_(work.times(a, inverse[of].transpose(1, 2)), 2 * counts[at])
                if times is not None:
                    grad_times[at] += own[at] * of_own[at]
            if times is not None:
                dv *= times[at]
            _put(dv, grad_v, at)
            da.sub_(work.times(a, da).sum(-1, keepdim=True, dtype=work.wide).to(da.dtype)).mul_(a)
            _put(_bmm(da, scaled[at[1]], grad_k[at]), grad_k, at)
            grad_anchors[at[1]] += torch.bmm(da.transpose(1, 2), k[at].to(work.inner))
            if bias is not None:
                grad_bias[at[1]] += da.sum(1, dtype=work.wide)
        grad_anchors = grad_anchors.mul_(work.scale).sum_to_size(anchors.shape).to(anchors.dtype)
        if bias is not None:
            grad_bias = grad_bias.sum_to_size(bias.shape).to(bias.dtype)
        return grad_k, grad_v, grad_anchors, grad_bias, grad_times, None


class _Work:
    """The blocks of one problem and the buffers that they share; wide: A in at least float32."""

    def __init__(self, k: Tensor, anchors: Tensor, bias: Tensor | None, *, wide: bool) -> None:
        self.b, self.h, self.n, d = k.shape
        self.m, self.scale = anchors.shape[-2], 1 / math.sqrt(d)
        self.wide = torch.promote_types(k.dtype, torch.float32)
        self.inner = self.wide if wide else k.dtype
        self.k, self.anchors = k, anchors.to(self.inner).expand(self.h, -1, -1)
        self.bias = None if bias is None else bias.to(self.inner).expand(self.h, -1).unsqueeze(-2)
        rows = max(1, BLOCK_BYTES // (self.m * self.inner.itemsize))
        self.tokens = min(self.n, rows)
        self.heads = max(1, min(self.h, rows // max(1, self.n)))
        size = self.heads * self.tokens * self.m
        self.logits, self.softmax = (torch.empty(size, dtype=self.inner, device=k.device) for _ in range(2))

    def blocks(self) -> Iterator[At]:
        """Indices of (heads, tokens, ·) blocks: several whole heads where they are short, else parts of one."""
        for image in range(self.b):
            for head in range(0, self.h, self.heads):
                for token in range(0, self.n, self.tokens):
                    heads = slice(head, min(head + self.heads, self.h))
                    yield image, heads, slice(token, min(token + self.tokens, self.n))

    def weights(self, at: At) -> Tensor:
        """A of a block, (heads, tokens, m), in a buffer that the next call overwrites."""
        k, u = self.k[at].to(self.inner), self.anchors[at[1]].transpose(1, 2)
        shape = (k.shape[0], k.shape[1], self.m)
        logits, softmax = (x[: math.prod(shape)].view(shape) for x in (self.logits, self.softmax))
        bias = logits if self.bias is None else self.bias[at[1]]
        torch.baddbmm(bias, k, u, beta=self.bias is not None, alpha=self.scale, out=logits)
        return torch.softmax(logits, -1, out=softmax)

    def times(self, a: Tensor, other: Tensor) -> Tensor:
        """a · other, element by element, where the logits of a were."""
        return torch.mul(a, other, out=self.logits[: a.numel()].view_as(a))

    def of_others(self, g: Tensor, v: Tensor, out: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """p (b, h, n, d) and y (b, h, n, 1), by which a token's share of itself is pulled."""
        pull, of_own = g.new_empty(g.shape, dtype=self.wide), torch.empty_like(share)
        for at in self.blocks():
            divides = 1 - share[at] >= LEAST_OTHERS  # below that, q does not change what is divided by
            p = torch.div(g[at], _others(share[at]), out=pull[at])
            of_own[at] = (p * (out[at] * divides - v[at])).sum(-1, keepdim=True)
        return pull, of_own

    def gather(self, v: Tensor, times: Tensor | None = None, *, squared: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Aᵀ(t v) (b, h, m, d), and Aᵀt (b, h, m, 1), or with `squared` Aᵀ²·squared."""
        sums = torch.zeros(self.b, self.h, self.m, v.shape[-1], dtype=self.wide, device=v.device)
        counts = torch.zeros(self.b, self.h, self.m, 1, dtype=self.wide, device=v.device)
        for at in self.blocks():
            a, of, x = self.weights(at), at[:2], v[at].to(self.inner)
            if times is not None:
                x = x * times[at]
            if self.wide == self.inner:
                sums[of].baddbmm_(a.transpose(1, 2), x)
            else:
                sums[of] += torch.bmm(a.transpose(1, 2), x)
            if squared is not None:
                counts[of].baddbmm_(self.times(a, a).transpose(1, 2), squared[at])
            else:
                counted = a if times is None else self.times(a, times[at])
                counts[of] += counted.sum(1, dtype=self.wide).unsqueeze(-1)
        return sums, counts


def _others(share: Tensor) -> Tensor:
    return (1 - share).clamp_min(LEAST_OTHERS)


def _bmm(x: Tensor, y: Tensor, into: Tensor) -> Tensor:
    """x y, written there if the types agree; else it is for _put to be written."""
    return torch.bmm(x, y, out=into if into.dtype == x.dtype else None)


def _put(found: Tensor, tensor: Tensor, at: At) -> None:
    if found.dtype != tensor.dtype:
        tensor[at] = found

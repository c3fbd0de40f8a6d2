"""Exact softmax attention that never materialises the n × n scores, by the kernels written for it.

    o = softmax(q kᵀ / √d) v        (b, h, n, d), a block of keys at a time with a running maximum and sum

Sources: Dao et al. 2022, arXiv 2205.14135; Dao 2023, arXiv 2307.08691 (fa2); Shah et al. 2024, arXiv 2407.08608 (fa3);
Zadouri et al. 2026, arXiv 2603.05451 (fa4); Dong et al. 2024, arXiv 2412.05496 (flex).

FLOPs follow that literature: a backward pass is 2.5 forward passes, the scores being computed a second time, and causal
attention counts half of n².
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attentions import flex as compiled_flex
from attentions import fused
from attentions.base import PROBLEMS, Backend, Cost, Exponents, Spec, Work, matmuls, softmax_flops, traffic

BLOCK = 256  # keys at a time in the reference
FASTEST = {  # by the GPU's compute capability; each falls to the next where it is missing
    8: ("fa2", "torch", "cudnn"),
    9: ("fa3", "fa4", "cudnn", "fa2", "torch"),
    10: ("fa4", "cudnn", "fa2", "torch"),
}


def reference(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b g j d"], v: Float[Tensor, "b g j d"], *, causal: bool = False
) -> Float[Tensor, "b h n d"]:
    """softmax(q kᵀ / √d) v by an online softmax over blocks of keys; sums are kept in at least float32.

    causal: each block of keys meets the queries from its own on, under a mask.

    Cost: 4·b·h·n·j·d FLOPs forward and 2.5 times that backward; b·h·n·BLOCK elements.
    Source: Dao 2023, arXiv 2307.08691, algorithms 1 and 2; ours blocks the keys only and keeps every query at once.
    """
    return _Online.apply(q, k, v, causal)


class _Online(torch.autograd.Function):
    """Keeps the output and each query's log-sum-exp, and recomputes the weights in backward."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        wide, scale = torch.promote_types(q.dtype, torch.float32), 1 / math.sqrt(q.shape[-1])
        queries, out = _grouped(q, k), torch.zeros_like(q, dtype=wide)
        largest = queries.new_full((*queries.shape[:-1], 1), -math.inf, dtype=wide)
        total, sums = torch.zeros_like(largest), _grouped(out, k)
        for start in range(0, k.shape[-2], BLOCK):
            block, rows = slice(start, start + BLOCK), slice(start if causal else 0, None)
            # the keys are scaled before the product: float16 ends at 65504
            weights = _products(queries[..., rows, :], k[..., block, :] * scale).to(wide)
            if causal:
                _hide_later(weights)
            seen = largest[..., rows, :]
            now = torch.maximum(seen, weights.amax(dim=-1, keepdim=True))
            weights.sub_(now).exp_()
            shrink = seen.sub_(now).exp_()
            total[..., rows, :].mul_(shrink).add_(weights.sum(dim=-1, keepdim=True))
            sums[..., rows, :].mul_(shrink).add_(_products(weights.to(q.dtype), v[..., block, :].transpose(-2, -1)))
            largest[..., rows, :] = now
            del weights  # before the next block's are made
        sums.div_(total)
        out = out.to(q.dtype)
        ctx.causal = causal
        ctx.save_for_backward(q, k, v, out, largest + total.log_())
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out, lse = ctx.saved_tensors
        scale = 1 / math.sqrt(q.shape[-1])
        mean = _grouped((grad.to(lse.dtype) * out).sum(dim=-1, keepdim=True), k)  # Σ_j weight_ij · its gradient
        queries, grads = _grouped(q, k), _grouped(grad, k)
        dq, dk, dv = torch.zeros_like(q, dtype=lse.dtype), torch.empty_like(k), torch.empty_like(v)
        sums = _grouped(dq, k)
        for start in range(0, k.shape[-2], BLOCK):
            block, rows = slice(start, start + BLOCK), slice(start if ctx.causal else 0, None)
            keys, values = k[..., block, :], v[..., block, :]
            some, upstream = queries[..., rows, :], grads[..., rows, :]
            weights = _products(some, keys * scale).to(lse.dtype)
            if ctx.causal:
                _hide_later(weights)
            weights.sub_(lse[..., rows, :]).exp_()
            dv[..., block, :] = _sums(weights.to(q.dtype), upstream)
            weights.mul_(_products(upstream, values).to(lse.dtype).sub_(mean[..., rows, :])).mul_(scale)
            dscores = weights.to(q.dtype)
            dk[..., block, :] = _sums(dscores, some)
            sums[..., rows, :].add_(_products(dscores, keys.transpose(-2, -1)))
            del weights, dscores
        return dq.to(q.dtype), dk, dv, None


def _grouped(x: Float[Tensor, "b h n e"], k: Float[Tensor, "b g j d"]) -> Float[Tensor, "b g r n e"]:
    """The heads of queries that share a head of keys side by side: a view."""
    return x.unflatten(1, (k.shape[1], x.shape[1] // k.shape[1]))


def _products(x: Float[Tensor, "b g r i d"], y: Float[Tensor, "b g j d"]) -> Float[Tensor, "b g r i j"]:
    """x yᵀ, as one product for all heads that share y; a copy of x only where there are several and i is a part."""
    return (x.flatten(2, 3) @ y.transpose(-2, -1)).unflatten(2, x.shape[2:4])


def _sums(x: Float[Tensor, "b g r i j"], y: Float[Tensor, "b g r i d"]) -> Float[Tensor, "b g j d"]:
    """Σ over r and i of xᵀ y."""
    return x.flatten(2, 3).transpose(-2, -1) @ y.flatten(2, 3)


def _hide_later(scores: Float[Tensor, "b g r i j"]) -> None:
    """−∞ in the place of keys after the query, for queries from the first key's place on; in place."""
    own = scores[..., : scores.shape[-1], :]
    own.masked_fill_(torch.ones(own.shape[-2:], dtype=torch.bool, device=own.device).triu_(1), -math.inf)


def flex(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b g j d"], v: Float[Tensor, "b g j d"], *, causal: bool = False
) -> Float[Tensor, "b h n d"]:
    """FlexAttention, without a mask or under the causal one."""
    return compiled_flex.attend(q, k, v, block_mask=compiled_flex.causal(q.shape[-2], q.device) if causal else None)


def cost(work: Work) -> Cost:
    """The reference: forward holds a block of scores, the output and its increment; backward two blocks and gradients.

    Scores and sums are in float32 where the inputs are narrower, beside a copy in the inputs' precision.
    """
    tensor, keys, block = work.tokens * work.d, work.keys * work.d, work.tokens * min(work.key_tokens, BLOCK)
    narrow, wide = work.itemsize, max(work.itemsize, 4)
    copy = narrow if narrow < wide else 0
    forward = block * (wide + copy) + tensor * (wide + narrow) + 4 * work.tokens * wide
    increment = max(block * wide, tensor * narrow)
    backward = block * (wide + copy) + increment + tensor * (narrow + wide) + 2 * keys * narrow + 2 * work.tokens * wide
    return Cost(
        flops=softmax_flops(work, backward=2.5),
        bytes=traffic(work),
        peak=forward if work.phase == "forward" else backward,
    )


def _executed(work: Work) -> int:
    """Causal: each block of keys with the queries from its first key on."""
    pairs = work.n * work.key_tokens
    if work.causal:
        pairs = sum((work.n - start) * min(BLOCK, work.n - start) for start in range(0, work.n, BLOCK))
    return matmuls(work, 4 * work.b * work.h * pairs * work.d, backward=2.5)


def rank(work: Work, dtype: torch.dtype, device: torch.device) -> Sequence[str]:
    """Best first on this device: PyTorch's own kernel on a CPU, by generation on a GPU."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return ("torch",)
    generation = torch.cuda.get_device_capability(device)[0]
    return FASTEST[min(max(generation, min(FASTEST)), max(FASTEST))]


SPEC = Spec(
    name="flash",
    title="Softmax attention, fused (FlashAttention)",
    paper="Dao et al. 2022, arXiv 2205.14135; Dao 2023, arXiv 2307.08691",
    exact=True,
    backends=(
        *map(fused.package_backend, fused.PACKAGES),
        fused.sdpa_backend("cudnn", "CUDNN_ATTENTION", "scaled_dot_product_attention held to cuDNN"),
        fused.sdpa_backend("torch", "FLASH_ATTENTION", "scaled_dot_product_attention held to PyTorch's flash kernel"),
        Backend(
            "flex", flex, "FlexAttention through torch.compile",
            missing=compiled_flex.missing, limits=compiled_flex.limits, automatic=False, peak=fused.peak, opaque=True,
        ),
        Backend(
            "reference", reference, "eager PyTorch: online softmax over blocks of keys", automatic=False,
            flops=_executed,
        ),
    ),
    problems=PROBLEMS,
    model=cost,
    exponents=Exponents(flops_n=2, flops_m=0, peak_n=1, peak_m=0),
    rank=rank,
)  # fmt: skip

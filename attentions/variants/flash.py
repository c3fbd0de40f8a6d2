"""Exact softmax attention that never materialises the n × n scores, by the kernels written for it.

    o = softmax(q kᵀ / √d) v        (b, h, n, d), a block of keys at a time with a running maximum and sum

Sources: Dao et al. 2022, arXiv 2205.14135; Dao 2023, arXiv 2307.08691 (fa2); Shah et al. 2024, arXiv 2407.08608 (fa3);
Zadouri et al. 2026, arXiv 2603.05451 (fa4); Dong et al. 2024, arXiv 2412.05496 (flex).

FLOPs follow that literature: a backward pass is 2.5 forward passes, the scores being computed a second time, and causal
attention counts half of n².
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from attentions import flex as compiled_flex
from attentions.base import PROBLEMS, Backend, Cost, Exponents, Spec, Work, matmuls, softmax_flops, traffic
from attentions.shipped import Package, cannot, trial

BLOCK = 256  # keys at a time in the reference
HALF = (torch.float16, torch.bfloat16)
WIDEST_HEAD = {"torch": 256, "cudnn": 128, "fa2": 256, "fa3": 256, "fa4": 128}  # on a GPU, forward and backward
PACKAGES = {  # of several, the first that is installed
    "fa4": (Package("flash-attn-4", "flash_attn.cute", "pip install 'attention-harness[flash]'"),),
    "fa3": (
        Package("flash-attn-3", "flash_attn_interface", "build it from hopper/ of Dao-AILab/flash-attention"),
        Package("fa3-fwd", "fa3_fwd_interface", "pip install 'attention-harness[flash]'", "forward only, in bfloat16"),
    ),
    "fa2": (Package("flash-attn", "flash_attn", "pip install flash-attn --no-build-isolation, which compiles it"),),
}
_functions: dict[str, Callable[..., Any]] = {}  # of those; a dict, since torch.compile traces no import
OLDEST = {"fa4": 9, "fa3": 9, "fa2": 8}  # compute capability
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


def sdpa(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b g j d"], v: Float[Tensor, "b g j d"], *, kernel: str,
    causal: bool = False,
) -> Float[Tensor, "b h n d"]:  # fmt: skip
    """scaled_dot_product_attention held to one of PyTorch's kernels; raises where that kernel cannot run."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(getattr(SDPBackend, kernel)):
        return F.scaled_dot_product_attention(
            _rows(q), _rows(k), _rows(v), is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
        )


def packaged(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b g j d"], v: Float[Tensor, "b g j d"], *, name: str,
    causal: bool = False,
) -> Float[Tensor, "b h n d"]:  # fmt: skip
    """`flash_attn_func` of a FlashAttention package (fa2, fa3, fa4), whose layout is (b, n, h, d).

    It takes fewer heads of keys than of queries as they are.
    """
    asked = {"causal": True} if causal else {}
    out = _function(name)(*(_rows(x).transpose(1, 2) for x in (q, k, v)), **asked)
    return (out[0] if isinstance(out, tuple) else out).transpose(1, 2)  # some releases also return the log-sum-exp


def _function(name: str) -> Callable[..., Any]:
    if name not in _functions:
        package = _installed(name)
        if package is None:
            raise ImportError(f"flash:{name} needs the package {PACKAGES[name][0]}")
        _functions[name] = importlib.import_module(package.module).flash_attn_func
    return _functions[name]


def _installed(name: str) -> Package | None:
    return next((package for package in PACKAGES[name] if package.is_installed()), None)


def _rows(x: Tensor) -> Tensor:
    """The kernels read a token's vector in one piece; a view that steps through it is copied."""
    return x if x.stride(-1) == 1 else x.contiguous()


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


def fused_peak(work: Work) -> int:
    """What a fused kernel keeps: the output and a float32 log-sum-exp; backward adds three gradients and a sum.

    PyTorch's CPU kernel holds besides a fixed scratch of about 0.5 MiB a thread.
    """
    tensor, keys, row = work.tokens * work.d * work.itemsize, work.keys * work.d * work.itemsize, 4 * work.tokens
    return tensor + row if work.phase == "forward" else 2 * (tensor + keys + row)


def rank(work: Work, dtype: torch.dtype, device: torch.device) -> Sequence[str]:
    """Best first on this device: PyTorch's own kernel on a CPU, by generation on a GPU."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return ("torch",)
    generation = torch.cuda.get_device_capability(device)[0]
    return FASTEST[min(max(generation, min(FASTEST)), max(FASTEST))]


def _sdpa_missing(device: torch.device, *, kernel: str, compute: Callable[..., Tensor]) -> str | None:
    if device.type != "cuda":
        return None if kernel == "FLASH_ATTENTION" else f"runs on a CUDA device only, not on the {device.type}"
    return trial(compute, device, torch.bfloat16)


def _package_missing(device: torch.device, *, name: str, compute: Callable[..., Tensor]) -> str | None:
    first, *others = PACKAGES[name]
    if device.type != "cuda":
        return f"runs on a CUDA device only, not on the {device.type}; it also needs the package {first}"
    if _installed(name) is None:
        ways = "; or the package ".join([first.install, *map(str, others)])
        return f"needs the package {first.name}, which is not installed: {ways}"
    major, minor = torch.cuda.get_device_capability(device)
    if major < OLDEST[name]:
        return f"needs a GPU of compute capability {OLDEST[name]}.0 or newer; this one has {major}.{minor}"
    return trial(compute, device, torch.bfloat16)


def _limits(
    work: Work, dtype: torch.dtype, device: torch.device, *, name: str, compute: Callable[..., Tensor]
) -> str | None:  # fmt: skip
    if device.type != "cuda":
        return None
    if dtype not in HALF:
        return f"computes in float16 or bfloat16 on a GPU, not in {str(dtype).removeprefix('torch.')}"
    if work.d > WIDEST_HEAD[name] or work.d % 8:
        return f"takes a head_dim that is a multiple of 8 up to {WIDEST_HEAD[name]}, not {work.d}"
    reason = _cudnn_limits(work, device) if name == "cudnn" else None
    return reason or cannot(compute, work, dtype, device)


def _cudnn_limits(work: Work, device: torch.device) -> str | None:
    """What PyTorch refuses to ask of cuDNN; the second in newer releases alone, though older ones meet it."""
    if min(work.n, work.key_tokens) < 2:
        return "takes at least 2 tokens, not 1"
    hopper = torch.cuda.is_available() and torch.cuda.get_device_capability(device)[0] == 9
    version = torch.backends.cudnn.version() or 0
    if hopper and version < 92600 and work.phase != "forward" and work.n % 128 == 64:
        return (
            f"can give gradients of q that are not finite where n is 64 modulo 128, with cuDNN before 9.26; n={work.n}"
        )
    return None


def _sdpa_backend(name: str, kernel: str, summary: str) -> Backend:
    compute = partial(sdpa, kernel=kernel)
    return Backend(
        name, compute, summary, missing=partial(_sdpa_missing, kernel=kernel, compute=compute),
        limits=partial(_limits, name=name, compute=compute), peak=fused_peak,
    )  # fmt: skip


def _package_backend(name: str) -> Backend:
    compute = partial(packaged, name=name)
    return Backend(
        name, compute, f"the package {' or '.join(package.name for package in PACKAGES[name])}",
        missing=partial(_package_missing, name=name, compute=compute),
        limits=partial(_limits, name=name, compute=compute), peak=fused_peak, opaque=True,
    )  # fmt: skip


SPEC = Spec(
    name="flash",
    title="Softmax attention, fused (FlashAttention)",
    paper="Dao et al. 2022, arXiv 2205.14135; Dao 2023, arXiv 2307.08691",
    exact=True,
    backends=(
        *map(_package_backend, PACKAGES),
        _sdpa_backend("cudnn", "CUDNN_ATTENTION", "scaled_dot_product_attention held to cuDNN"),
        _sdpa_backend("torch", "FLASH_ATTENTION", "scaled_dot_product_attention held to PyTorch's flash kernel"),
        Backend(
            "flex", flex, "FlexAttention through torch.compile",
            missing=compiled_flex.missing, limits=compiled_flex.limits, automatic=False, peak=fused_peak, opaque=True,
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

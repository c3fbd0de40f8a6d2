"""Exact softmax attention that never materialises the n × n scores, by the kernels written for it.

    o = softmax(q kᵀ / √d) v        (b, h, n, d), a block of keys at a time with a running maximum and sum

Sources: Dao et al. 2022, arXiv 2205.14135; Dao 2023, arXiv 2307.08691 (fa2); Shah et al. 2024, arXiv 2407.08608 (fa3);
Zadouri et al. 2026, arXiv 2603.05451 (fa4); Dong et al. 2024, arXiv 2412.05496 (flex).

FLOPs follow that literature: a backward pass is 2.5 forward passes, the scores being computed a second time.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from attentions import flex as compiled_flex
from attentions.base import Backend, Cost, Exponents, Spec, Work, matmuls, traffic, trial

BLOCK = 256  # keys at a time in the reference
HALF = (torch.float16, torch.bfloat16)
WIDEST_HEAD = {"torch": 256, "cudnn": 128, "fa2": 256, "fa3": 256, "fa4": 128}  # on a GPU, forward and backward
FASTEST = {  # by the GPU's compute capability; each falls to the next where it is missing
    8: ("fa2", "torch", "cudnn"),
    9: ("fa3", "fa4", "cudnn", "fa2", "torch"),
    10: ("fa4", "cudnn", "fa2", "torch"),
}


def reference(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"]
) -> Float[Tensor, "b h n d"]:
    """softmax(q kᵀ / √d) v by an online softmax over blocks of keys; sums are kept in at least float32.

    Cost: 4·b·h·n²·d FLOPs forward and 2.5 times that backward; b·h·n·BLOCK elements.
    Source: Dao 2023, arXiv 2307.08691, algorithms 1 and 2; ours blocks the keys only and keeps every query at once.
    """
    return _Online.apply(q, k, v)


class _Online(torch.autograd.Function):
    """Keeps the output and each query's log-sum-exp, and recomputes the weights in backward."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        wide, scale = torch.promote_types(q.dtype, torch.float32), 1 / math.sqrt(q.shape[-1])
        largest = q.new_full((*q.shape[:-1], 1), -math.inf, dtype=wide)
        total, out = torch.zeros_like(largest), torch.zeros_like(q, dtype=wide)
        for keys, values in zip(k.split(BLOCK, dim=-2), v.split(BLOCK, dim=-2), strict=True):
            weights = (q @ keys.transpose(-2, -1)).to(wide).mul_(scale)
            seen, largest = largest, torch.maximum(largest, weights.amax(dim=-1, keepdim=True))
            weights.sub_(largest).exp_()
            shrink = (seen - largest).exp_()
            total.mul_(shrink).add_(weights.sum(dim=-1, keepdim=True))
            out.mul_(shrink).add_(weights.to(q.dtype) @ values)
            del weights  # before the next block's are made
        out = out.div_(total).to(q.dtype)
        ctx.save_for_backward(q, k, v, out, largest + total.log_())
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, out, lse = ctx.saved_tensors
        scale = 1 / math.sqrt(q.shape[-1])
        mean = (grad.to(lse.dtype) * out).sum(dim=-1, keepdim=True)  # Σ_j weight_ij · its gradient
        dq = torch.zeros_like(q, dtype=lse.dtype)
        dk, dv = torch.empty_like(k), torch.empty_like(v)
        for start in range(0, k.shape[-2], BLOCK):
            block = slice(start, start + BLOCK)
            keys, values = k[..., block, :], v[..., block, :]
            weights = (q @ keys.transpose(-2, -1)).to(lse.dtype).mul_(scale).sub_(lse).exp_()
            dv[..., block, :] = weights.to(q.dtype).transpose(-2, -1) @ grad
            weights.mul_((grad @ values.transpose(-2, -1)).to(lse.dtype).sub_(mean)).mul_(scale)
            dscores = weights.to(q.dtype)
            dk[..., block, :] = dscores.transpose(-2, -1) @ q
            dq.add_(dscores @ keys)
            del weights, dscores
        return dq.to(q.dtype), dk, dv


def sdpa(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"], *, kernel: str
) -> Float[Tensor, "b h n d"]:
    """scaled_dot_product_attention held to one of PyTorch's kernels; raises where that kernel cannot run."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(getattr(SDPBackend, kernel)):
        return F.scaled_dot_product_attention(_rows(q), _rows(k), _rows(v))


def packaged(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"], *, module: str
) -> Float[Tensor, "b h n d"]:
    """`flash_attn_func` of one of the FlashAttention packages, whose layout is (b, n, h, d)."""
    attend = importlib.import_module(module).flash_attn_func
    out = attend(*(_rows(x).transpose(1, 2) for x in (q, k, v)))
    return (out[0] if isinstance(out, tuple) else out).transpose(1, 2)  # some releases also return the log-sum-exp


def _rows(x: Tensor) -> Tensor:
    """The kernels read a token's vector in one piece; a view that steps through it is copied."""
    return x if x.stride(-1) == 1 else x.contiguous()


def flex(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"]
) -> Float[Tensor, "b h n d"]:
    """FlexAttention without a mask."""
    return compiled_flex.attend(q, k, v)


def cost(work: Work) -> Cost:
    """The reference: forward holds a block of scores, the output and its increment; backward two blocks and gradients.

    Scores and sums are in float32 where the inputs are narrower, beside a copy in the inputs' precision.
    """
    tensor, block = work.tokens * work.d, work.tokens * min(work.n, BLOCK)
    narrow, wide = work.itemsize, max(work.itemsize, 4)
    copy = narrow if narrow < wide else 0
    forward = block * (wide + copy) + tensor * (wide + narrow) + 4 * work.tokens * wide
    increment = max(block * wide, tensor * narrow)
    backward = block * (wide + copy) + increment + tensor * (3 * narrow + wide) + 2 * work.tokens * wide
    return Cost(
        flops=matmuls(work, 4 * work.tokens * work.n * work.d, backward=2.5),
        bytes=traffic(work),
        peak=forward if work.phase == "forward" else backward,
    )


def fused_peak(work: Work) -> int:
    """What a fused kernel keeps: the output and a float32 log-sum-exp; backward adds three gradients and a sum.

    PyTorch's CPU kernel holds besides a fixed scratch of about 0.5 MiB a thread.
    """
    tensor, row = work.tokens * work.d * work.itemsize, 4 * work.tokens
    return tensor + row if work.phase == "forward" else 4 * tensor + 2 * row


def rank(work: Work, dtype: torch.dtype, device: torch.device) -> Sequence[str]:
    """Best first on this device: PyTorch's own kernel on a CPU, by generation on a GPU."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return ("torch",)
    generation = torch.cuda.get_device_capability(device)[0]
    return FASTEST[min(max(generation, min(FASTEST)), max(FASTEST))]


def _sdpa_missing(device: torch.device, *, kernel: str) -> str | None:
    if device.type != "cuda":
        return None if kernel == "FLASH_ATTENTION" else f"runs on a CUDA device only, not on the {device.type}"
    return trial(partial(sdpa, kernel=kernel), device, torch.bfloat16)


def _package_missing(device: torch.device, *, module: str, package: str, install: str, oldest: int) -> str | None:
    if device.type != "cuda":
        return f"runs on a CUDA device only, not on the {device.type}; it also needs the package {package}: {install}"
    if importlib.util.find_spec(module.split(".")[0]) is None:
        return f"needs the package {package}, which is not installed: {install}"
    major, minor = torch.cuda.get_device_capability(device)
    if major < oldest:
        return f"needs a GPU of compute capability {oldest}.0 or newer; this one has {major}.{minor}"
    return trial(partial(packaged, module=module), device, torch.bfloat16)


def _half_limits(work: Work, dtype: torch.dtype, device: torch.device, *, name: str) -> str | None:
    if device.type != "cuda":
        return None
    if dtype not in HALF:
        return f"computes in float16 or bfloat16 on a GPU, not in {str(dtype).removeprefix('torch.')}"
    if work.d > WIDEST_HEAD[name] or work.d % 8:
        return f"takes a head_dim that is a multiple of 8 up to {WIDEST_HEAD[name]}, not {work.d}"
    return None


def _sdpa_backend(name: str, kernel: str, summary: str) -> Backend:
    return Backend(
        name,
        partial(sdpa, kernel=kernel),
        summary,
        missing=partial(_sdpa_missing, kernel=kernel),
        limits=partial(_half_limits, name=name),
        peak=fused_peak,
    )


def _package_backend(name: str, module: str, package: str, install: str, oldest: int) -> Backend:
    return Backend(
        name,
        partial(packaged, module=module),
        f"the package {package}",
        missing=partial(_package_missing, module=module, package=package, install=install, oldest=oldest),
        limits=partial(_half_limits, name=name),
        peak=fused_peak,
        opaque=True,
    )


SPEC = Spec(
    name="flash",
    title="Softmax attention, fused (FlashAttention)",
    paper="Dao et al. 2022, arXiv 2205.14135; Dao 2023, arXiv 2307.08691",
    exact=True,
    backends=(
        _package_backend("fa4", "flash_attn.cute", "flash-attn-4", "pip install flash-attn-4", 9),
        _package_backend(
            "fa3", "flash_attn_interface", "flash-attn-3", "build it from hopper/ of Dao-AILab/flash-attention", 9
        ),
        _package_backend("fa2", "flash_attn", "flash-attn", "pip install 'attention-harness[flash]'", 8),
        _sdpa_backend("cudnn", "CUDNN_ATTENTION", "scaled_dot_product_attention held to cuDNN"),
        _sdpa_backend("torch", "FLASH_ATTENTION", "scaled_dot_product_attention held to PyTorch's flash kernel"),
        Backend(
            "flex", flex, "FlexAttention through torch.compile",
            missing=compiled_flex.missing, limits=compiled_flex.limits, automatic=False, peak=fused_peak, opaque=True,
        ),
        Backend("reference", reference, "eager PyTorch: online softmax over blocks of keys", automatic=False),
    ),
    model=cost,
    exponents=Exponents(flops_n=2, flops_m=0, peak_n=1, peak_m=0),
    rank=rank,
)  # fmt: skip

"""Memory-efficient softmax attention: exact, with the scores of a few queries at a time.

    o = softmax(q kᵀ / √d) v        (b, h, n, d)

Sources: Rabe & Staats 2021, arXiv 2112.05682; the kernels of facebookresearch/xformers.

FLOPs follow the literature of fused attention: a backward pass is 2.5 forward passes, the scores being computed a
second time, and causal attention counts half of n².
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from attentions.base import PROBLEMS, Backend, Cost, Exponents, Spec, Work, matmuls, softmax_flops, traffic
from attentions.eager import heads_apart, heads_together
from attentions.shipped import Package, cannot, trial

BLOCK = 256  # queries at a time in the reference
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
ALIGNMENT = 16  # bytes of a head's row: the kernels load vectors of this size
PACKAGE = Package("xformers", "xformers", "pip install 'attention-harness[gpu]'")


def reference(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b g j d"], v: Float[Tensor, "b g j d"], *, causal: bool = False
) -> Float[Tensor, "b h n d"]:
    """softmax(q kᵀ / √d) v, a block of queries at a time, each computed again in backward.

    causal: each block meets the keys up to its own end, under a mask.

    Cost: 4·b·h·n·j·d FLOPs forward and 2.5 times that backward (the second product is not repeated);
    2·b·h·n·BLOCK elements.
    Source: Rabe & Staats 2021, arXiv 2112.05682, section 2; ours blocks the queries only, so no softmax is split.
    """
    ends = [min(start + BLOCK, q.shape[-2]) if causal else k.shape[-2] for start in range(0, q.shape[-2], BLOCK)]
    out = [
        checkpoint(_attend, block, k[..., :end, :], v[..., :end, :], causal, use_reentrant=False)
        for block, end in zip(q.split(BLOCK, dim=-2), ends, strict=True)
    ]
    return torch.cat(out, dim=-2)


def _attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    scores = _without_later if causal else _scores
    return heads_apart(torch.softmax(scores(q, k), dim=-1) @ v, q)


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return heads_together(q, k) / math.sqrt(q.shape[-1]) @ k.transpose(-2, -1)


def _without_later(q: Tensor, k: Tensor) -> Tensor:
    """The scores of the last tokens of the keys, −∞ in the place of every key after the query."""
    own, keys = q.shape[-2], k.shape[-2]
    later = torch.ones(own, keys, dtype=torch.bool, device=q.device).triu_(keys - own + 1)
    groups = q.shape[1] // k.shape[1]
    return _scores(q, k).unflatten(-2, (groups, own)).masked_fill(later, -math.inf).flatten(-3, -2)


def efficient(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h j d"], v: Float[Tensor, "b h j d"], *, causal: bool = False
) -> Float[Tensor, "b h n d"]:
    """scaled_dot_product_attention held to PyTorch's memory-efficient kernel, which has no grouped heads."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        return F.scaled_dot_product_attention(_rows(q), _rows(k), _rows(v), is_causal=causal)


def package(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b g j d"], v: Float[Tensor, "b g j d"], *, causal: bool = False
) -> Float[Tensor, "b h n d"]:
    """`xformers.ops.memory_efficient_attention`, whose layout is (b, n, h, d).

    Grouped heads in its layout (b, n, g, r, d), keys and values expanded along r without a copy, as it documents them.
    """
    operators, groups = _operators(), q.shape[1] // k.shape[1]
    inputs = [_rows(x).transpose(1, 2) for x in (q, k, v)]
    if groups > 1:
        queries, *others = inputs
        inputs = [queries.unflatten(2, (k.shape[1], groups)), *(_expanded(x, groups) for x in others)]
    mask = {"attn_bias": operators.LowerTriangularMask()} if causal else {}
    out = operators.memory_efficient_attention(*inputs, **mask)
    return (out.flatten(2, 3) if groups > 1 else out).transpose(1, 2)


def _expanded(x: Float[Tensor, "b j g d"], groups: int) -> Float[Tensor, "b j g r d"]:
    return x.unsqueeze(3).expand(-1, -1, -1, groups, -1)


def _rows(x: Tensor) -> Tensor:
    """The kernels read a token's vector in one piece; a view that steps through it is copied."""
    return x if x.stride(-1) == 1 else x.contiguous()


@cache
def _operators() -> Any:
    """xformers.ops. Its wheel is built for CUDA 12: beside another CUDA it loads only after that runtime's library."""
    if not (torch.version.cuda or "").startswith("12."):
        runtime = importlib.util.find_spec("nvidia")  # a namespace package: one folder for each library
        for folder in (runtime and runtime.submodule_search_locations) or ():
            library = Path(folder, "cuda_runtime", "lib", "libcudart.so.12")
            if library.exists():
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return importlib.import_module("xformers.ops")


def cost(work: Work) -> Cost:
    """The reference: forward holds the scores and weights of one block and the output; backward three blocks, the
    output and the gradients."""
    tensor, keys = work.tokens * work.d, work.keys * work.d
    block = work.b * work.h * min(work.n, BLOCK) * work.key_tokens
    peak = 2 * block + tensor if work.phase == "forward" else 3 * block + 2 * tensor + 2 * keys
    mask = min(work.n, BLOCK) * work.n if work.causal else 0
    return Cost(flops=softmax_flops(work, backward=2.5), bytes=traffic(work), peak=peak * work.itemsize + mask)


def _executed(work: Work) -> int:
    """Causal: each block of queries with the keys up to its end."""
    pairs = work.n * work.key_tokens
    if work.causal:
        ends = [min(start + BLOCK, work.n) for start in range(0, work.n, BLOCK)]
        pairs = sum(end * (end - start) for start, end in zip((0, *ends), ends, strict=False))
    return matmuls(work, 4 * work.b * work.h * pairs * work.d, backward=2.5)


def fused_peak(work: Work) -> int:
    """What a fused kernel keeps: the output and a float32 log-sum-exp; backward adds three gradients and a sum."""
    tensor, keys, row = work.tokens * work.d * work.itemsize, work.keys * work.d * work.itemsize, 4 * work.tokens
    return tensor + row if work.phase == "forward" else 2 * (tensor + keys + row)


def _package_missing(device: torch.device) -> str | None:
    if device.type != "cuda":
        return f"runs on a CUDA device only, not on the {device.type}; it also needs the package {PACKAGE}"
    if not PACKAGE.is_installed():
        return f"needs the package {PACKAGE.name}, which is not installed: {PACKAGE.install}"
    return trial(package, device, torch.float16)


def _efficient_missing(device: torch.device) -> str | None:
    if device.type != "cuda":
        return f"runs on a CUDA device only, not on the {device.type}; flash:torch is exact and runs on a CPU"
    return trial(efficient, device, torch.float16)


def _limits(
    work: Work, dtype: torch.dtype, device: torch.device, *, compute: Callable[..., Tensor]
) -> str | None:  # fmt: skip
    if dtype not in DTYPES:
        return f"computes in float16, bfloat16 or float32, not in {str(dtype).removeprefix('torch.')}"
    step = ALIGNMENT // work.itemsize
    if work.d % step:
        return f"takes a head_dim that is a multiple of {step} in {str(dtype).removeprefix('torch.')}, not {work.d}"
    if work.kv_heads is not None and compute is efficient:
        return "has no grouped heads: PyTorch's memory-efficient kernel takes as many of keys as of queries"
    return cannot(compute, work, dtype, device)


SPEC = Spec(
    name="xformers",
    title="Softmax attention, memory-efficient (xFormers)",
    paper="Rabe & Staats 2021, arXiv 2112.05682",
    exact=True,
    backends=(
        Backend(
            "xformers", package, "the package xformers",
            missing=_package_missing, limits=partial(_limits, compute=package), peak=fused_peak, opaque=True,
        ),
        Backend(
            "torch", efficient, "scaled_dot_product_attention held to PyTorch's memory-efficient kernel",
            missing=_efficient_missing, limits=partial(_limits, compute=efficient), peak=fused_peak,
        ),
        Backend(
            "reference", reference, "eager PyTorch: blocks of queries, computed twice", automatic=False,
            flops=_executed,
        ),
    ),
    problems=PROBLEMS,
    model=cost,
    exponents=Exponents(flops_n=2, flops_m=0, peak_n=1, peak_m=0),
)  # fmt: skip

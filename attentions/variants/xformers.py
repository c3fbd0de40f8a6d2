"""Memory-efficient softmax attention: exact, with the scores of a few queries at a time.

    o = softmax(q kᵀ / √d) v        (b, h, n, d)

Sources: Rabe & Staats 2021, arXiv 2112.05682; the kernels of facebookresearch/xformers.

FLOPs follow the literature of fused attention: a backward pass is 2.5 forward passes, the scores being computed a
second time.
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

from attentions.base import Backend, Cost, Exponents, Spec, Work, matmuls, traffic
from attentions.shipped import Package, cannot, trial

BLOCK = 256  # queries at a time in the reference
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
ALIGNMENT = 16  # bytes of a head's row: the kernels load vectors of this size
PACKAGE = Package("xformers", "xformers", "pip install 'attention-harness[gpu]'")


def reference(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"]
) -> Float[Tensor, "b h n d"]:
    """softmax(q kᵀ / √d) v, a block of queries at a time, each computed again in backward.

    Cost: 4·b·h·n²·d FLOPs forward and 2.5 times that backward (the second product is not repeated);
    2·b·h·n·BLOCK elements.
    Source: Rabe & Staats 2021, arXiv 2112.05682, section 2; ours blocks the queries only, so no softmax is split.
    """
    blocks = q.split(BLOCK, dim=-2)
    return torch.cat([checkpoint(_attend, block, k, v, use_reentrant=False) for block in blocks], dim=-2)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q / math.sqrt(q.shape[-1]) @ k.transpose(-2, -1), dim=-1) @ v


def efficient(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"]
) -> Float[Tensor, "b h n d"]:
    """scaled_dot_product_attention held to PyTorch's memory-efficient kernel."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        return F.scaled_dot_product_attention(_rows(q), _rows(k), _rows(v))


def package(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"]
) -> Float[Tensor, "b h n d"]:
    """`xformers.ops.memory_efficient_attention`, whose layout is (b, n, h, d)."""
    attend = _operators().memory_efficient_attention
    return attend(*(_rows(x).transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


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
    tensor, block = work.tokens * work.d, work.tokens * min(work.n, BLOCK)
    peak = 2 * block + tensor if work.phase == "forward" else 3 * block + 4 * tensor
    return Cost(
        flops=matmuls(work, 4 * work.tokens * work.n * work.d, backward=2.5),
        bytes=traffic(work),
        peak=peak * work.itemsize,
    )


def fused_peak(work: Work) -> int:
    """What a fused kernel keeps: the output and a float32 log-sum-exp; backward adds three gradients and a sum."""
    tensor, row = work.tokens * work.d * work.itemsize, 4 * work.tokens
    return tensor + row if work.phase == "forward" else 4 * tensor + 2 * row


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
        Backend("reference", reference, "eager PyTorch: blocks of queries, computed twice", automatic=False),
    ),
    model=cost,
    exponents=Exponents(flops_n=2, flops_m=0, peak_n=1, peak_m=0),
)  # fmt: skip

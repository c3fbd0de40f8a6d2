"""Fused softmax attention that others ship, each kernel held to: PyTorch's and the FlashAttention packages.

sdpa_backend("cudnn", "CUDNN_ATTENTION", "…")       # a Backend that raises where that kernel cannot run
package_backend("fa3")                              # of the first of PACKAGES["fa3"] that is installed

What each needs and refuses changes with its releases; what they compute is the definition of attentions.variants.flash.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from attentions.base import Backend, Work
from attentions.shipped import Package, cannot, trial

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


def peak(work: Work) -> int:
    """What a fused kernel keeps: the output and a float32 log-sum-exp; backward adds three gradients and a sum.

    PyTorch's CPU kernel holds besides a fixed scratch of about 0.5 MiB a thread.
    """
    tensor, keys, row = work.tokens * work.d * work.itemsize, work.keys * work.d * work.itemsize, 4 * work.tokens
    return tensor + row if work.phase == "forward" else 2 * (tensor + keys + row)


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


def sdpa_backend(name: str, kernel: str, summary: str) -> Backend:
    compute = partial(sdpa, kernel=kernel)
    return Backend(
        name, compute, summary, missing=partial(_sdpa_missing, kernel=kernel, compute=compute),
        limits=partial(_limits, name=name, compute=compute), peak=peak,
    )  # fmt: skip


def package_backend(name: str) -> Backend:
    compute = partial(packaged, name=name)
    return Backend(
        name, compute, f"the package {' or '.join(package.name for package in PACKAGES[name])}",
        missing=partial(_package_missing, name=name, compute=compute),
        limits=partial(_limits, name=name, compute=compute), peak=peak, opaque=True,
    )  # fmt: skip

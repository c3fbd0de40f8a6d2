"""The backends of anchor attention beside its definition: what each computes, executes, allocates and refuses.

The kernels' modules are imported on first use, for importing Triton takes a second.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from attentions.base import Backend, Unavailable, Work, matmuls
from attentions.kernels.anchor.chunked import BLOCK_BYTES, chunked
from attentions.kernels.anchor.options import inside, peak_around, products_around, relative, untaken

OUTGROWN = 24 * 2**20  # elements of A, from which `chunked` is quicker on a CPU with 32 MiB of last-level cache


def rank(work: Work, dtype: torch.dtype, device: torch.device) -> tuple[str, ...]:
    """The bare name's backends, fastest first, of those that compile nothing on the CPU; docs/performance.md measures.

    Where A outgrows every cache and has more columns than k and v have, most of eager PyTorch's time goes into moving
    it, and blocks of tokens are quicker though they form A twice. Not while torch.compile traces: it would unroll the
    blocks for minutes, and what it makes of the reference is as quick.
    """
    if device.type == "cuda":
        return "triton", "reference", "sdpa"
    m = work.m or 0
    if device.type == "cpu" and not work.compiled and m > work.d and work.tokens * m >= OUTGROWN:
        return "chunked", "reference", "sdpa"
    return "reference", "sdpa"


def two_softmax(
    k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"], anchors: Float[Tensor, "*heads m d"],
    scatter: Float[Tensor, "*heads m d"] | None = None, bias: Tensor | None = None, scatter_bias: Tensor | None = None,
    importance: Float[Tensor, "b h n"] | None = None, **words: Any,
) -> Float[Tensor, "b h n d"]:  # fmt: skip
    """O through two calls of scaled_dot_product_attention.

    Step one is softmax attention of the anchors over the tokens with the per-key bias −lse_i, where lse_i is token
    i's log-sum-exp over the anchors: its weights are A_ij / Σ_i A_ij. Importance adds to the bias. Step two is softmax
    attention of the tokens over the anchors. Cost: 10·b·h·n·m·d FLOPs, since the logits are formed three times.
    """
    if words or bias is not None or scatter_bias is not None:
        raise _refusal("sdpa", "bias=true, self=excluded")
    b, h, _, d = k.shape
    u = anchors.to(k.dtype).expand(b, h, -1, d)
    logits = k @ u.transpose(-2, -1) / math.sqrt(d)
    offset = -torch.logsumexp(logits.to(torch.promote_types(k.dtype, torch.float32)), dim=-1)
    if importance is not None:
        offset = offset + relative(importance)
    offset = offset.to(k.dtype)
    means = F.scaled_dot_product_attention(u, k, v, attn_mask=offset.unsqueeze(-2).expand(b, h, u.shape[-2], -1))
    if scatter is not None:  # read by other anchors, one of zero degree, whose means are those of its largest logits
        most = (logits.detach() + offset.detach().unsqueeze(-1)).amax(dim=-2).unsqueeze(-1)
        means = means * (most.exp() > 0)
    return F.scaled_dot_product_attention(k, u if scatter is None else scatter.to(k.dtype).expand_as(u), means)


def compiled(reference: Callable[..., Tensor]) -> Backend:
    """torch.compile of the reference, a graph for each shape and set of options."""

    @cache
    def graph() -> Callable[..., Tensor]:
        return torch.compile(reference, dynamic=False)

    def compute(*tensors: Tensor | None, **words: Any) -> Tensor:
        import torch._dynamo  # on first use: it takes seconds

        # past dynamo's own limit of shapes it would run eagerly, without a word
        with torch._dynamo.config.patch(recompile_limit=1024, accumulated_recompile_limit=4096):
            return graph()(*tensors, **words)

    return Backend(
        "compile", compute, "torch.compile of the reference", missing=_no_compiler, automatic=False, opaque=True
    )


def _plain(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of (k, v, anchors) as a core calls it; a core with other options in it is refused, never ignored."""

    def compute(k: Tensor, v: Tensor, anchors: Tensor, *further: Tensor | None, **words: Any) -> Tensor:
        if further or words:
            raise _refusal(name, "scatter=separate, bias=true, self=excluded, importance=true")
        return function(k, v, anchors)

    return compute


def _refusal(name: str, options: str) -> Unavailable:
    return Unavailable(f"anchor:{name} takes none of {options}; anchor:reference does")


def _no_compiler(device: torch.device) -> str | None:
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        return "needs a C++ compiler for torch.compile on the CPU and none is on PATH; install g++"
    return None


def blocks(
    k: Tensor, v: Tensor, anchors: Tensor, scatter: Tensor | None = None, bias: Tensor | None = None,
    scatter_bias: Tensor | None = None, importance: Tensor | None = None, *, excluded: bool = False,
) -> Float[Tensor, "b h n d"]:  # fmt: skip
    """`chunked` as a core calls it."""
    if scatter is not None:
        raise _refusal("chunked", "scatter=separate")
    return chunked(k, v, anchors, bias, importance, excluded=excluded)


def _chunked_flops(work: Work) -> int:
    """`excluded` sums each token's share of itself; backward what of it pulls at each anchor's degree."""
    weights = work.tokens * (work.m or 0)
    return matmuls(work, 8 * weights * work.d) + matmuls(work, 2 * weights * inside(work)["self=excluded"], backward=1)


def _chunked_peak(work: Work) -> int:
    """Results, two buffers of a block of A (backward: up to four), and W with its like in float32.

    `excluded` holds p and a few numbers of each token, in float32 at least; importance what each token counts, and the
    gradient by which k is pulled, for which a narrow k is copied.
    """
    m, asked, wide = work.m or 0, inside(work), max(work.itemsize, 4)
    excluded, counted = asked["self=excluded"], asked["importance=true"]
    size = wide if excluded else work.itemsize
    rows = min(work.tokens, BLOCK_BYTES // (size * max(1, m)))
    buffer, block, statistics = rows * m * size, rows * work.d * size, 3 * work.b * work.h * m * work.d * 4
    tensor, copied, number = work.tokens * work.d * work.itemsize, work.tokens * work.d * wide, work.tokens * wide
    copy = copied if counted and work.itemsize < wide else 0
    if work.phase == "forward":
        shares = excluded * ((1 + (work.itemsize < wide)) * block + number)
        return max(tensor + 2 * buffer + statistics + shares + 2 * counted * number, copy + number)
    numbers = (2 * excluded + (3 if excluded else 1) * counted) * number
    buffers = (3 + (rows < work.tokens)) * buffer  # the last block's gradient of A, too
    return 3 * tensor + copy + max(buffers + excluded * copied, counted * copied) + numbers + statistics


def _kernels(name: str, summary: str, schedule: str | None, *, automatic: bool) -> Backend:
    """The Triton kernels; schedule: `split`, `single`, or None for what tuning or the heuristic says."""

    def fused(k: Tensor, v: Tensor, anchors: Tensor) -> Tensor:
        from attentions.kernels.anchor.operators import anchor_attention

        return anchor_attention(k, v, anchors, schedule=schedule)

    def either(k: Tensor, v: Tensor, anchors: Tensor, *further: Tensor | None, **words: Any) -> Tensor:
        if not further and not words:
            return fused(k, v, anchors)
        from attentions.kernels.anchor.staged import attend

        return attend(k, v, anchors, *further, **words)

    def packed(kv: Tensor, anchors: Tensor) -> Tensor:
        from attentions.kernels.anchor.operators import anchor_attention_fused

        return anchor_attention_fused(kv, anchors, schedule=schedule)

    def limits(work: Work, dtype: torch.dtype, device: torch.device) -> str | None:
        choices = _module("choices")
        size = {"n": work.n, "d": work.d, "m": work.m or 0, "dtype": dtype}
        if schedule is None and _apart(work):
            return _never_both(work) or _module("plan_staged").limits(**size)
        reason = untaken(work, "per_head=true") or choices.limits(**size)
        if reason or schedule in (None, "split"):
            return reason
        passes = ("forward", "backward")[: 1 + (work.phase != "forward")]
        return next(filter(None, (choices.not_single(**size, phase=phase) for phase in passes)), None)

    def peak(work: Work) -> int:
        size = {"b": work.b, "h": work.h, "n": work.n, "d": work.d, "m": work.m or 0}
        fused = _module("cost").peak(**size, dtype=_dtype(work), phase=work.phase, schedule=schedule)
        return fused + (_apart_bytes(work) if _apart(work) else 0)

    return Backend(
        name, either if schedule is None else _plain(name, fused), summary, missing=_no_triton,
        limits=limits, automatic=automatic, packed=packed, flops=_kernel_flops, peak=peak,
    )  # fmt: skip


def _apart(work: Work) -> bool:
    """Whether gather and scatter go through staged.py."""
    return any(wanted for option, wanted in inside(work).items() if option != "per_head=true")


def _apart_bytes(work: Work) -> int:
    """At most what staged.py holds beside the fused passes: the gradient of k from either stage; with self=excluded
    output, own part and quotient in float32."""
    tensor, wide = work.tokens * work.d * work.itemsize, work.tokens * work.d * 4
    backward = 2 * tensor if work.phase != "forward" else 0
    return backward + (3 * wide if inside(work)["self=excluded"] else 0)


def _never_both(work: Work) -> str | None:
    asked = inside(work)
    if asked["scatter=separate"] and asked["self=excluded"]:
        return "does not take scatter=separate and self=excluded together; anchor:reference does"
    return None


def staged(
    compute: Callable[..., Tensor], *, flops: Callable[[Work], int], peak: Callable[[Work], int]
) -> Backend:  # fmt: skip
    """The backend `triton` of a variant made of staged.gather and staged.scatter; both figures are without them."""

    def limits(work: Work, dtype: torch.dtype, device: torch.device) -> str | None:
        return _module("plan_staged").limits(n=work.n, d=work.d, m=work.m or 0, dtype=dtype)

    def whole_peak(work: Work) -> int:
        size = {"b": work.b, "h": work.h, "n": work.n, "d": work.d, "m": work.m or 0}
        fused = _module("cost").peak(**size, dtype=_dtype(work), phase=work.phase, schedule="split")
        return fused + peak(work) + (2 * work.tokens * work.d * work.itemsize if work.phase != "forward" else 0)

    return Backend(
        "triton", compute, "Triton kernels for gather and scatter, nothing of size n × m stored", missing=_no_triton,
        limits=limits, flops=lambda work: _staged_flops(work) + flops(work), peak=whole_peak,
    )  # fmt: skip


def _staged_flops(work: Work) -> int:
    """Of 4 products forward and 11 backward."""
    return matmuls(work, 8 * work.tokens * (work.m or 0) * work.d, backward=11 / 4)


def _kernel_flops(work: Work) -> int:
    if _apart(work):
        return _staged_flops(work)
    phases, flops = ("forward", "backward") if work.phase == "train" else (work.phase,), _module("cost").flops
    return sum(flops(tokens=work.tokens, d=work.d, m=work.m or 0, dtype=_dtype(work), phase=x) for x in phases)


def _dtype(work: Work) -> torch.dtype:
    return torch.float32 if work.itemsize == 4 else torch.float16


def _no_triton(device: torch.device) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "needs the package triton, which comes with PyTorch on Linux and CUDA"
    return _module("devices").why_missing(device)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"attentions.kernels.anchor.{name}")


def with_options(backend: Backend) -> Backend:
    """A backend of the variant: it counts what options do around it, and refuses what the reference alone computes."""
    flops, peak = backend.flops, backend.peak

    def limits(work: Work, dtype: torch.dtype, device: torch.device) -> str | None:
        return "has no causal form; anchor:reference has" if work.causal else backend.limits(work, dtype, device)

    return replace(
        backend,
        limits=limits,
        flops=flops and (lambda work: flops(work) + matmuls(work, products_around(work))),
        peak=peak and (lambda work: peak_around(work, peak(work))),
    )


KERNELS = (
    _kernels("triton", "fused Triton kernels, nothing of size n × m stored", None, automatic=True),
    _kernels("split", "the same kernels, always a launch a stage, untuned", "split", automatic=False),
    _kernels("single", "the same in one launch, a program a head, n up to 1024, untuned", "single", automatic=False),
)
SDPA = Backend(
    "sdpa", two_softmax, "two calls of scaled_dot_product_attention",
    limits=lambda work, dtype, device: untaken(work, "scatter=separate", "per_head=true", "importance=true"),
    # A bias with a gradient: on a CPU PyTorch keeps the gather's weights, on a GPU it computes their scores again.
    flops=lambda work: matmuls(
        work, 10 * work.tokens * (work.m or 0) * work.d, backward=2.4 if work.device == "cuda" else 2.2
    ),
)  # fmt: skip
CHUNKED = Backend(
    "chunked", blocks, "eager PyTorch, blocks of tokens that stay in cache",
    limits=lambda work, dtype, device: untaken(work, "bias=true", "per_head=true", "self=excluded", "importance=true"),
    flops=_chunked_flops, peak=_chunked_peak, frugal=True,
)  # fmt: skip

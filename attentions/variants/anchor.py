"""Anchor attention (AnchorFormer): a Markov step from token to anchor to token, linear in n.

With anchors U (m, d) and a shared query/key k:

    A = softmax_j(k_i · u_j / √d)        (b, h, n, m), over the anchors
    O = A (Δ⁻¹ (Aᵀ v)),  Δ = diag(Aᵀ 1)  (b, h, n, d); the n × n matrix A Δ⁻¹ Aᵀ is never formed

Source: Shan et al. 2025, arXiv 2505.16463. There is no query, so this is not an approximation of one given softmax
attention: q is accepted and ignored.

Known weakness: with the published start, `init="paper"`, the logits are so small that A is nearly uniform and the
output nearly the mean of v over all tokens. `scripts/anchor_sharpness.py` measures the token-varying share of the
output's energy. The default, `init="sharp"`, differs in the initial anchors alone, not in the formula or its cost, and
learns in the same steps what the published start does not; docs/anchor.md has the tables. `scale` multiplies the
initial anchors; `logits="cosine"` starts sharp whatever the sizes of k, U and d are.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import shutil
from collections.abc import Callable
from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Backend, Compute, Cost, Exponents, Option, Size, Spec, Work, matmuls, traffic
from attentions.eager import softmax
from attentions.kernels.anchor_chunked import BLOCK_BYTES, chunked

INITIALISATIONS = ("paper", "orthogonal", "sharp")
SHARP = 4.0  # standard deviation of the logits of init=sharp for a key of independent entries of variance 1
LOGITS = ("dot", "cosine")
OUTGROWN = 24 * 2**20  # elements of A, from which `chunked` is quicker on a CPU with 32 MiB of last-level cache


class Anchor(nn.Module):
    """Anchor attention with its parameter `anchors` (m, d), shared by all heads.

    With logits=cosine also `sharpness` (h,), the logarithm of each head's temperature t: every backend then computes
    the formula above for u of length √d and k of length t·√d, so that the logits are t·√d·cos(k, u). For directions at
    random √d·cos has variance 1 whatever d is.
    """

    def __init__(
        self, size: Size, compute: Compute, *, init: str, scale: float, logits: str, temperature: float
    ) -> None:
        super().__init__()
        self.compute = compute
        self.anchors = nn.Parameter(torch.empty(size.anchors or 0, size.head_dim))
        initialise(self.anchors, init=init, scale=scale)
        self.sharpness = None
        if logits == "cosine":
            self.sharpness = nn.Parameter(torch.full((size.heads,), math.log(temperature)))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(b, h, n, d) each → (b, h, n, d); q is ignored."""
        if self.sharpness is None:
            return self.compute(k, v, self.anchors)
        units = F.normalize(self.anchors, dim=-1) * math.sqrt(self.anchors.shape[-1])
        return self.compute(sharpened(k, self.sharpness), v, units)

    def packed(self, kv: Tensor) -> Tensor | None:
        """(b, n, 2, h, d) → (b, n, h, d), or None where k and v are taken apart."""
        return self.compute.packed(kv, self.anchors) if self.sharpness is None else None


def initialise(anchors: Tensor, *, init: str, scale: float) -> None:
    """Fill anchors (m, d) in place, then multiply by `scale`.

    paper: the weight of a bias-free linear layer by PyTorch's default, uniform in ±1/√d, as published;
    orthogonal: rows of random orthogonal matrices of norm 1, a fresh one for each d rows;
    sharp: the same of norm 4·√d, so that logits spread by 4 for keys of variance 1, whatever d is.
    """
    with torch.no_grad():
        if init == "paper":
            nn.init.uniform_(anchors, -1 / math.sqrt(anchors.shape[1]), 1 / math.sqrt(anchors.shape[1]))
        else:
            for start in range(0, anchors.shape[0], anchors.shape[1]):
                nn.init.orthogonal_(anchors[start : start + anchors.shape[1]])
        if init == "sharp":
            anchors.mul_(SHARP * math.sqrt(anchors.shape[1]))
        anchors.mul_(scale)


def sharpened(k: Float[Tensor, "b h n d"], sharpness: Float[Tensor, " h"]) -> Float[Tensor, "b h n d"]:
    """k at length √d · exp(sharpness) for each head; a token of length zero stays zero. Lengths in float32 at least.

    Cost: one pass over k, b·h·n·d elements.
    """
    wide = torch.promote_types(k.dtype, torch.float32)
    length = torch.linalg.vector_norm(k, dim=-1, keepdim=True, dtype=wide)
    target = math.sqrt(k.shape[-1]) * sharpness.to(wide).exp()
    return k * (target.view(-1, 1, 1) / length.clamp_min(torch.finfo(wide).tiny ** 0.5)).to(k.dtype)


def assignment(k: Float[Tensor, "b h n d"], anchors: Float[Tensor, "m d"]) -> Float[Tensor, "b h n m"]:
    """A: each token's distribution over the anchors."""
    return softmax(k @ (anchors / math.sqrt(k.shape[-1])).to(k.dtype).transpose(-2, -1))


def reference(
    k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"], anchors: Float[Tensor, "m d"]
) -> Float[Tensor, "b h n d"]:
    """O = A (Δ⁻¹ (Aᵀ v)), right to left; an anchor of zero degree contributes zero.

    Cost: 6·b·h·n·m·d FLOPs, 2·b·h·n·m elements.
    Source: Shan et al. 2025, arXiv 2505.16463; the release builds Δ⁻¹ as a matrix for every head, here it scales rows.
    """
    a = assignment(k, anchors)
    degree = a.sum(dim=-2, dtype=torch.promote_types(a.dtype, torch.float32)).unsqueeze(-1)
    inverse = torch.where(degree > 0, 1 / degree, 0).to(a.dtype)
    return a @ (inverse * (a.transpose(-2, -1) @ v))


def two_softmax(
    k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"], anchors: Float[Tensor, "m d"]
) -> Float[Tensor, "b h n d"]:
    """The same through two calls of scaled_dot_product_attention.

    Step one is softmax attention of the anchors over the tokens with the per-key bias −lse_i, where lse_i is token
    i's log-sum-exp over the anchors: its weights are A_ij / Σ_i A_ij. Step two is softmax attention of the tokens over
    the anchors. Cost: 10·b·h·n·m·d FLOPs, since the logits are formed three times.
    """
    b, h, _, d = k.shape
    u = anchors.to(k.dtype).expand(b, h, -1, d)
    logits = k @ u.transpose(-2, -1) / math.sqrt(d)
    bias = -torch.logsumexp(logits.to(torch.promote_types(k.dtype, torch.float32)), dim=-1).to(k.dtype)
    means = F.scaled_dot_product_attention(u, k, v, attn_mask=bias.unsqueeze(-2).expand(b, h, u.shape[-2], -1))
    return F.scaled_dot_product_attention(k, u, means)


def cost(work: Work) -> Cost:
    """Forward holds A and its logits; backward A, the two gradients that meet in it and the logits'.

    The degrees are summed in at least float32, for which the CPU widens a copy of A. logits=cosine has no other
    products.
    """
    m, narrow, wide = work.m or 0, work.itemsize, max(work.itemsize, 4)
    weights, tensor = work.tokens * m, work.tokens * work.d * narrow
    if work.phase == "forward":
        peak = weights * narrow + max(weights * wide, tensor)
    else:
        peak = max(4 * weights * narrow + 2 * tensor, weights * narrow + 3 * tensor)
    parameters = m * work.d + (work.h if _cosine(work) else 0)
    return Cost(
        flops=matmuls(work, 6 * weights * work.d),
        bytes=traffic(work, inputs=2, parameters=parameters),
        peak=_sharpened_peak(work, peak),
    )


def _cosine(work: Work) -> bool:
    return work.options.get("logits") == "cosine"


def _sharpened_peak(work: Work, peak: int) -> int:
    """With logits=cosine: a backend's peak beside k at its new length, or later the gradients that meet in k.

    Those are five tensors of k's size, the output among them; a narrow type has one of them in float32 and its copy.
    """
    if not _cosine(work):
        return peak
    wide = max(work.itemsize, 4)
    tensor, lengths = work.tokens * work.d * work.itemsize, work.tokens * wide
    if work.phase == "forward":
        return peak + tensor + lengths
    return max(peak + tensor, (5 if work.itemsize == wide else 7) * tensor) + 3 * lengths


def _chunked_peak(work: Work) -> int:
    """Results, two buffers of a block of A (backward: four), and W with its like in float32."""
    tensor, buffer = work.tokens * work.d * work.itemsize, min(BLOCK_BYTES, work.tokens * (work.m or 0) * work.itemsize)
    statistics = work.b * work.h * (work.m or 0) * work.d * 4
    peak = (tensor if work.phase == "forward" else 3 * tensor) + 4 * buffer + 3 * statistics
    return _sharpened_peak(work, peak)


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


def _no_compiler(device: torch.device) -> str | None:
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        return "needs a C++ compiler for torch.compile on the CPU and none is on PATH; install g++"
    return None


def _compiled(k: Tensor, v: Tensor, anchors: Tensor) -> Tensor:
    import torch._dynamo  # on first use: it takes seconds

    # past dynamo's own limit of shapes it would run eagerly, without a word
    with torch._dynamo.config.patch(recompile_limit=1024, accumulated_recompile_limit=4096):
        return _graph()(k, v, anchors)


@cache
def _graph() -> Callable[..., Tensor]:
    return torch.compile(reference, dynamic=False)


def _no_triton(device: torch.device) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "needs the package triton, which comes with PyTorch on Linux and CUDA"
    return _plan().why_missing(device)


def _triton(name: str, summary: str, schedule: str | None, *, automatic: bool) -> Backend:
    """The kernels as a backend; schedule: `split`, `persistent`, or None for what tuning or the heuristic says."""

    def compute(k: Tensor, v: Tensor, anchors: Tensor) -> Tensor:
        from attentions.kernels.anchor import anchor_attention

        return anchor_attention(k, v, anchors, schedule=schedule)

    def packed(kv: Tensor, anchors: Tensor) -> Tensor:
        from attentions.kernels.anchor import anchor_attention_fused

        return anchor_attention_fused(kv, anchors, schedule=schedule)

    def limits(work: Work, dtype: torch.dtype, device: torch.device) -> str | None:
        size = {"n": work.n, "d": work.d, "m": work.m or 0, "dtype": dtype}
        reason = _plan().limits(**size)
        if reason or schedule != "persistent":
            return reason
        passes = ("forward",) if work.phase == "forward" else ("forward", "backward")
        return _plan().not_persistent(**size, parts=work.b * work.h, passes=passes, device=_plan().device_of(device))

    return Backend(
        name, compute, summary, missing=_no_triton, limits=limits, automatic=automatic, packed=packed,
        flops=_triton_flops, peak=lambda work: _triton_peak(work, schedule),
    )  # fmt: skip


def _triton_flops(work: Work) -> int:
    dtype = torch.float32 if work.itemsize == 4 else torch.float16
    phases = ("forward", "backward") if work.phase == "train" else (work.phase,)
    return sum(_plan().flops(tokens=work.tokens, d=work.d, m=work.m or 0, dtype=dtype, phase=x) for x in phases)


def _triton_peak(work: Work, schedule: str | None) -> int:
    """Results and workspace of the phase, for the first CUDA device here, else an H100."""
    plan, dtype = _plan(), torch.float32 if work.itemsize == 4 else torch.float16
    device = plan.device_of(torch.device("cuda", 0)) if torch.cuda.is_available() else plan.H100
    size = {"b": work.b, "h": work.h, "n": work.n, "d": work.d, "m": work.m or 0, "dtype": dtype, "device": device}
    size |= {"schedule": schedule}
    tensor, means = work.tokens * work.d * work.itemsize, work.b * work.h * (work.m or 0) * (work.d + 1) * 4
    kept = {"forward": tensor + means, "backward": 2 * tensor, "train": 3 * tensor + means}[work.phase]
    sketch = plan.sketch(**size, phase="forward" if work.phase == "forward" else "backward")
    return _sharpened_peak(work, kept + sketch.workspace_bytes)


def _plan() -> ModuleType:
    return importlib.import_module("attentions.kernels.anchor_plan")  # on first use: importing Triton takes a second


SPEC = Spec(
    name="anchor",
    title="Anchor attention (AnchorFormer)",
    paper="Shan et al. 2025, arXiv 2505.16463",
    bottleneck="anchors",
    shares_query_key=True,
    options=(
        Option("init", "sharp", "how the anchors start; paper: as published", choices=INITIALISATIONS),
        Option("scale", 1.0, "factor on the initial anchors; larger is sharper", minimum=0.0),
        Option("logits", "dot", "k·u/√d, or √d·cos(k, u) times a learned temperature of each head", choices=LOGITS),
        Option("temperature", 2.0, "where the temperature of logits=cosine starts; larger is sharper", minimum=0.01),
    ),
    module=Anchor,
    rank=rank,
    backends=(
        _triton("triton", "fused Triton kernels, nothing of size n × m stored", None, automatic=True),
        _triton("split", "the same kernels, always a launch a stage, untuned", "split", automatic=False),
        _triton("persistent", "the same in one launch where a head fits in L2, untuned", "persistent", automatic=False),
        Backend("reference", reference, "eager PyTorch: three matrix products and a softmax"),
        Backend(
            "compile", _compiled, "torch.compile of the reference", missing=_no_compiler, automatic=False, opaque=True
        ),
        Backend(
            "sdpa",
            two_softmax,
            "two calls of scaled_dot_product_attention",
            flops=lambda work: matmuls(work, 10 * work.tokens * (work.m or 0) * work.d, backward=2.2),
        ),
        Backend(
            "chunked",
            chunked,
            "eager PyTorch, blocks of tokens that stay in cache",
            flops=lambda work: matmuls(work, 8 * work.tokens * (work.m or 0) * work.d),
            peak=_chunked_peak,
        ),
    ),
    model=cost,
    exponents=Exponents(flops_n=1, flops_m=1, peak_n=1, peak_m=1),
)

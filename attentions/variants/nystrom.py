"""Nyström attention: softmax attention through m landmarks, the means of consecutive segments of the tokens.

    o = softmax(q k̃ᵀ / √d) Z (softmax(q̃ kᵀ / √d) v) + DConv(v)
    Z ≈ pinv(softmax(q̃ k̃ᵀ / √d)),  q̃, k̃ (m, d) the segments' means

DConv is a depthwise convolution over the tokens with one filter for each head and no bias.

Source: Xiong et al. 2021, arXiv 2102.03902, algorithm 1. Ours differs from the release in Z's start,
which is taken for each matrix (a maximum over the batch makes a sample's result depend on its neighbours), and where m
does not divide n, by segments of two lengths (padding with zeros would add keys that take softmax mass).

In cross attention q̃ are means of the queries and k̃ of the keys, each in m segments of its own; DConv(v) has no place
there, since it adds value i to query i. With kv_heads the filter is still one for each head of queries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Backend, Cost, Exponents, Option, Size, Spec, Work, matmuls, traffic
from attentions.eager import depthwise, heads_apart, heads_repeated, heads_together, segment_means, softmax_weights


class Nystrom(nn.Module):
    """Nyström attention with the parameter `residual.weight` (h, 1, kernel, 1); none with residual_kernel=0."""

    def __init__(self, size: Size, compute: Callable[..., Tensor], *, residual_kernel: int, iterations: int) -> None:
        super().__init__()
        self.compute, self.landmarks, self.iterations = compute, size.anchors or 0, iterations
        self.residual = None
        if residual_kernel:
            h = size.heads
            self.residual = nn.Conv2d(h, h, (residual_kernel, 1), groups=h, bias=False)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(b, h, n, d), and k and v (b, g, j, d), → (b, h, n, d)."""
        weight = None if self.residual is None else self.residual.weight
        return self.compute(q, k, v, weight, landmarks=self.landmarks, iterations=self.iterations)


def reference(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g j d"],
    v: Float[Tensor, "b g j d"],
    weight: Float[Tensor, "h 1 kernel 1"] | None,
    *,
    landmarks: int,
    iterations: int,
) -> Float[Tensor, "b h n d"]:
    """The formula, from the right, so that no n × j matrix is formed; exact attention where landmarks ≥ n or j.

    Softmaxes and the pseudo-inverse are taken in at least float32.

    Cost: b·h·(4·(n + j)·m·d + 4·m²·d + 8·m³·iterations + 2·n·d·kernel) FLOPs, 2·b·h·n·m elements.
    Source: Xiong et al. 2021, arXiv 2102.03902, algorithm 1.
    """
    if landmarks >= min(q.shape[-2], k.shape[-2]):
        out = heads_apart(softmax_weights(heads_together(q, k), k) @ v, q)
    else:
        q_means, k_means = segment_means(q, landmarks), segment_means(k, landmarks)
        wide, rows = torch.promote_types(q.dtype, torch.float32), heads_together(q_means, k)
        inverse = pseudo_inverse(heads_apart(softmax_weights(rows.to(wide), k_means.to(wide)), q_means), iterations)
        mixed = (inverse @ heads_apart(softmax_weights(rows, k) @ v, q_means).to(wide)).to(q.dtype)
        out = heads_apart(softmax_weights(heads_together(q, k), k_means), q) @ mixed
    return out if weight is None else out + depthwise(heads_repeated(v, q.shape[1]), weight)


def pseudo_inverse(a: Float[Tensor, "b h m m"], iterations: int) -> Float[Tensor, "b h m m"]:
    """Z after some steps of Z ← ¼ Z (13 I − A Z (15 I − A Z (7 I − A Z))) from Aᵀ / (‖A‖₁ ‖A‖∞), for each matrix.

    Stopping early regularises: where A is nearly singular an exact pseudo-inverse is a worse approximation.
    Source: Xiong et al. 2021, arXiv 2102.03902, after Razavi et al. 2014.
    """
    identity = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    norms = a.sum(dim=-2).amax(dim=-1) * a.sum(dim=-1).amax(dim=-1)
    z = a.transpose(-2, -1) / norms[..., None, None]
    for _ in range(iterations):
        az = a @ z
        z = z / 4 @ (13 * identity - az @ (15 * identity - az @ (7 * identity - az)))
    return z


def cost(work: Work) -> Cost:
    """Forward holds one softmax's scores and weights; backward both softmaxes' weights, two gradients of that size and
    the pseudo-inverse's steps, which are in at least float32.
    """
    m, kernel, steps = work.m or 0, work.options["residual_kernel"], work.options["iterations"]
    tensor, heads = work.tokens * work.d, work.b * work.h
    products = 4 * heads * (work.n + work.key_tokens) * m * work.d + heads * m * m * (4 * work.d + 8 * m * steps)
    if _is_exact(work):
        products = 4 * work.tokens * work.key_tokens * work.d
    return Cost(
        flops=matmuls(work, products + 2 * tensor * kernel),
        bytes=traffic(work, parameters=work.h * kernel),
        peak=_exact_peak(work) if _is_exact(work) else _peak(work, m=m, kernel=kernel, steps=steps),
    )


def _is_exact(work: Work) -> bool:
    """There are not fewer landmarks than tokens to stand for."""
    return (work.m or 0) >= min(work.n, work.key_tokens)


def _peak(work: Work, *, m: int, kernel: int, steps: int) -> int:
    tensor, keys = work.tokens * work.d * work.itemsize, work.keys * work.d * work.itemsize
    weights, gathered = (work.b * work.h * tokens * m * work.itemsize for tokens in (work.n, work.key_tokens))
    larger, small = max(weights, gathered), work.b * work.h * m * max(work.itemsize, 4)
    repeated = tensor if kernel and work.kv_heads else 0  # v, for the convolution
    if work.phase == "forward":
        inner = max(larger + max(larger, tensor), (3 * tensor if kernel else 0) + repeated)
        return inner + small * (m + 3 * work.d)
    inverse = small * (m * (6 * steps + 2) + 4 * work.d)
    kept = 1 + 2 * (kernel > 0)  # the convolution's input, which is a copy on a CPU, and its gradient
    outer = 3 * weights + gathered + kept * tensor + inverse
    inner = max(weights, gathered) + weights + gathered + tensor + 2 * keys + inverse
    return max(outer, inner, 3 * gathered + 2 * tensor + keys, 4 * tensor + 2 * keys, 2 * tensor + 4 * keys)


def _exact_peak(work: Work) -> int:
    tensor, keys = work.tokens * work.d * work.itemsize, work.keys * work.d * work.itemsize
    weights = work.tokens * work.key_tokens * work.itemsize
    if work.phase == "forward":
        return max(2 * weights + tensor, 3 * tensor)
    return max(3 * weights + tensor + 2 * keys, 2 * tensor + 4 * keys)


def _check(size: Size, options: Mapping[str, Any]) -> str | None:
    kernel = options["residual_kernel"]
    if kernel and kernel % 2 == 0:
        return f"option residual_kernel={kernel} is not valid; it takes an odd number, or 0 for none"
    if kernel and size.kv_tokens is not None:
        return (
            f"residual_kernel={kernel} adds value i to query i, which kv_tokens={size.kv_tokens} beside "
            f"{size.tokens} queries leaves without meaning; set residual_kernel=0"
        )
    return None


def _note(work: Work) -> str:
    if not _is_exact(work):
        return ""
    return f"exact attention: {work.m} landmarks are not fewer than {min(work.n, work.key_tokens)} tokens"


SPEC = Spec(
    name="nystrom",
    title="Nyström attention (Nyströmformer)",
    paper="Xiong et al. 2021, arXiv 2102.03902",
    bottleneck="landmarks",
    options=(
        Option("residual_kernel", 33, "tokens that the convolution of v spans; odd, 0 for none", minimum=0),
        Option("iterations", 6, "steps of the pseudo-inverse", minimum=1),
    ),
    module=Nystrom,
    backends=(Backend("reference", reference, "eager PyTorch: three softmaxes and an iterative pseudo-inverse"),),
    model=cost,
    exponents=Exponents(flops_n=1, flops_m=1, peak_n=1, peak_m=1),
    problems=("kv_heads", "kv_tokens"),
    refuses={"causal": "nystrom's landmarks are means over all tokens, so each of them tells of later tokens"},
    check=_check,
    note=_note,
)

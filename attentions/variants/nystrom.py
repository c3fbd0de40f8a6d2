"""Nyström attention: softmax attention through m landmarks, the means of consecutive segments of the tokens.

    o = softmax(q k̃ᵀ / √d) Z (softmax(q̃ kᵀ / √d) v) + DConv(v)
    Z ≈ pinv(softmax(q̃ k̃ᵀ / √d)),  q̃, k̃ (m, d) the segments' means

DConv is a depthwise convolution over the tokens with one filter for each head and no bias.

Source: Xiong et al. 2021, arXiv 2102.03902, algorithm 1. Ours differs from the release in Z's start,
which is taken for each matrix (a maximum over the batch makes a sample's result depend on its neighbours), and where m
does not divide n, by segments of two lengths (padding with zeros would add keys that take softmax mass).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import Backend, Cost, Exponents, Option, Size, Spec, Work, matmuls, traffic
from attentions.eager import depthwise, segment_means, softmax_weights


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
        """(b, h, n, d) each → (b, h, n, d)."""
        weight = None if self.residual is None else self.residual.weight
        return self.compute(q, k, v, weight, landmarks=self.landmarks, iterations=self.iterations)


def reference(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h n d"],
    v: Float[Tensor, "b h n d"],
    weight: Float[Tensor, "h 1 kernel 1"] | None,
    *,
    landmarks: int,
    iterations: int,
) -> Float[Tensor, "b h n d"]:
    """The formula, from the right, so that no n × n matrix is formed; exact attention where landmarks ≥ n.

    Softmaxes and the pseudo-inverse are taken in at least float32.

    Cost: b·h·(8·n·m·d + 4·m²·d + 8·m³·iterations + 2·n·d·kernel) FLOPs, 2·b·h·n·m elements.
    Source: Xiong et al. 2021, arXiv 2102.03902, algorithm 1.
    """
    if landmarks >= q.shape[-2]:
        out = softmax_weights(q, k) @ v
    else:
        q_means, k_means = segment_means(q, landmarks), segment_means(k, landmarks)
        wide = torch.promote_types(q.dtype, torch.float32)
        inverse = pseudo_inverse(softmax_weights(q_means.to(wide), k_means.to(wide)), iterations)
        mixed = inverse @ (softmax_weights(q_means, k) @ v).to(wide)
        out = softmax_weights(q, k_means) @ mixed.to(q.dtype)
    return out if weight is None else out + depthwise(v, weight)


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
    the pseudo-inverse's steps, which are in at least float32. With one head a CPU's convolution holds up to two more
    tensors of v's size.
    """
    m, kernel, steps = work.m or 0, work.options["residual_kernel"], work.options["iterations"]
    tensor, heads = work.tokens * work.d, work.b * work.h
    products = 8 * work.tokens * m * work.d + heads * m * m * (4 * work.d + 8 * m * steps)
    if m >= work.n:
        products = 4 * work.tokens * work.n * work.d
    return Cost(
        flops=matmuls(work, products + 2 * tensor * kernel),
        bytes=traffic(work, parameters=work.h * kernel),
        peak=_exact_peak(work) if m >= work.n else _peak(work, m=m, kernel=kernel, steps=steps),
    )


def _peak(work: Work, *, m: int, kernel: int, steps: int) -> int:
    tensor, weights = work.tokens * work.d * work.itemsize, work.tokens * m * work.itemsize
    small = work.b * work.h * m * max(work.itemsize, 4)
    if work.phase == "forward":
        return max(weights + max(weights, tensor), 3 * tensor if kernel else 0) + small * (m + 3 * work.d)
    inverse = small * (m * (6 * steps + 2) + 4 * work.d)
    kept = 1 + (kernel > 0) * (2 if work.itemsize < 4 else 1)  # the convolution's input; float16's as float32 on a CPU
    outer = 4 * weights + kept * tensor
    return max(outer + inverse, 3 * weights + 3 * tensor + inverse, 6 * tensor)


def _exact_peak(work: Work) -> int:
    tensor, weights = work.tokens * work.d * work.itemsize, work.tokens * work.n * work.itemsize
    if work.phase == "forward":
        return max(2 * weights + tensor, 3 * tensor)
    return max(3 * weights + 3 * tensor, 6 * tensor)


def _check(size: Size, options: Mapping[str, Any]) -> str | None:
    kernel = options["residual_kernel"]
    if kernel and kernel % 2 == 0:
        return f"option residual_kernel={kernel} is not valid; it takes an odd number, or 0 for none"
    return None


def _note(work: Work) -> str:
    if (work.m or 0) < work.n:
        return ""
    return f"exact attention: {work.m} landmarks are not fewer than {work.n} tokens"


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
    check=_check,
    note=_note,
)

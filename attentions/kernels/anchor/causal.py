"""Causal anchor attention: each token reads the anchors as the tokens up to it have filled them. Eager, linear in n.

    O_i = B_i Δ_i⁻¹ (Σ_{j ≤ i} A_jᵀ v_j),  Δ_i = diag(Σ_{j ≤ i} A_j)

By running sums in chunks (attentions.running), in at least float32.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from attentions.base import Work, matmuls
from attentions.running import products_flops, products_peak, running_products


def attend(
    a: Float[Tensor, "b h n m"], back: Float[Tensor, "b h n m"], v: Float[Tensor, "b h n d"]
) -> Float[Tensor, "b h n d"]:
    """Σ_{j ≤ i} (Σ_a B_ia A_ja / Δ_ia) v_j; back: B, A itself where the way back has no anchors of its own."""
    wide = torch.promote_types(a.dtype, torch.float32)
    a, back = a.to(wide), a.to(wide) if back is a else back.to(wide)
    return running_products(_shares(a, back), a, v.to(wide)).to(v.dtype)


def _shares(a: Float[Tensor, "b h n m"], back: Float[Tensor, "b h n m"]) -> Float[Tensor, "b h n m"]:
    """Of each anchor's degree up to a token, what the token reads; zero where that degree is."""
    degree = a.cumsum(dim=-2)
    return torch.where(degree > 0, back / degree, 0)


def flops(work: Work, logits: int) -> int:
    """What the reference executes in a phase: the logits, whose forward FLOPs are given, and the chunks' products."""
    return matmuls(work, logits + products_flops(work, m=work.m or 0, e=work.d))


def peak(work: Work) -> int:
    """A and its shares, and the running sums' own; backward the degrees, where they are zero, and the output too."""
    weights, tensor, wide = work.tokens * (work.m or 0), work.tokens * work.d, max(work.itemsize, 4)
    sums = products_peak(work, m=work.m or 0, e=work.d)
    if work.phase == "forward":
        return (2 * weights + sums) * wide
    return (3 * weights + tensor + max(sums, 5 * weights)) * wide + weights

"""A trained query and key projection merged into one, for variants in which a token's query is its key.

    weight, bias = shared_projection(query, key, heads=3, how="symmetric")       # (dim, dim) each → (dim, dim), (dim,)

What training has shaped is the bilinear form in which a head compares tokens x and y, xᵀ B y with B = W_qᵀ W_k, and not
W_q or W_k themselves: (A W_q, A⁻ᵀ W_k) gives the same model for every invertible A. So their mean, or the key's weights
alone, say little: both change with A. A shared projection P compares tokens by xᵀ PᵀP y, which is symmetric and
positive. `symmetric` takes the P of d rows whose PᵀP is nearest (Frobenius) to the symmetric part (B + Bᵀ)/2: the
eigenvectors of its d largest eigenvalues, times their roots, negative ones cut to 0. It does not depend on A but for a
rotation within the head, chosen to bring P closest to the mean of W_q and W_k; where W_q = W_k, P is just that. The
biases take part as the weights of a constant further input.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from attentions.base import AttentionError, unknown

MERGES = ("symmetric", "mean", "key")
Projection = tuple[Tensor, Tensor | None]  # the weight (dim, width) and bias (dim) of a linear layer


def shared_projection(query: Projection, key: Projection, *, heads: int, how: str = "symmetric") -> Projection:
    """One (weight, bias) for the two of `query` and `key`, (dim, width) and (dim) each, in their dtype.

    how: symmetric, as above; mean of both; or key, its weights alone. Raises AttentionError for another word.
    """
    if how not in MERGES:
        raise AttentionError(unknown("merge", how, MERGES))
    with torch.no_grad():
        if how == "key":
            return key[0].clone(), None if key[1] is None else key[1].clone()
        q, k = _augmented(query, heads), _augmented(key, heads)
        merged = (q + k) / 2 if how == "mean" else _nearest(q, k)
        flat = merged.transpose(1, 2).flatten(0, 1).to(key[0].dtype)  # (dim, width [+ 1])
        width = key[0].shape[1]
        return flat[:, :width].contiguous(), None if key[1] is None else flat[:, width].contiguous()


def _augmented(projection: Projection, heads: int) -> Float[Tensor, "heads inputs d"]:
    """Each head's weights in float64, its bias as the row of a constant further input."""
    weight, bias = projection
    rows = weight if bias is None else torch.cat([weight, bias.unsqueeze(1)], dim=1)
    return rows.double().unflatten(0, (heads, -1)).transpose(1, 2)


def _nearest(q: Float[Tensor, "heads inputs d"], k: Float[Tensor, "heads inputs d"]) -> Float[Tensor, "heads inputs d"]:
    """P (inputs, d) of each head with P Pᵀ nearest to (q kᵀ + k qᵀ)/2, rotated towards the mean of q and k.

    That form lives in the span of q's and k's columns: in a basis of it the eigenproblem has size 2·d, not `inputs`.
    """
    d = q.shape[-1]
    basis, inside = torch.linalg.qr(torch.cat([q, k], dim=-1))
    left, right = inside[..., :d], inside[..., d:]
    form = left @ right.mT
    values, vectors = torch.linalg.eigh((form + form.mT) / 2)  # ascending
    p = basis @ (vectors[..., -d:] * values[..., -d:].clamp(min=0).sqrt().unsqueeze(-2))
    u, _, vt = torch.linalg.svd(p.mT @ (q + k) / 2)
    return p @ (u @ vt)

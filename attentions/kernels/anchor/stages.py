"""Gather and scatter as launches of their own, for what the fused passes do not know: a bias of each anchor's logit,
tokens that count more than others, other anchors on the way back, and what stands between the two.

    A = softmax_j((k_i · u_j + c_j) / √d)
    gather:  M = Aᵀ G X,  δ = Aᵀ G 1              G = diag(g): how many times each token counts, or 1
    scatter: O = A W,  s_i = Σ_a A_ia² r_a        s: a token's own share of A Δ⁻¹ Aᵀ, with r = 1/δ
    backward of both, from dA = G (X Yᵀ + 1 eᵀ):  gather X = V, Y = dM, e = dδ;  scatter X = dO, Y = W, e = 0

All anchors of a token are in one tile. Sums over splits, images and heads are left to PyTorch.
"""

from __future__ import annotations

import triton
import triton.language as tl

from attentions.kernels.anchor.algebra import add_dot, dot, logits, softmax
from attentions.kernels.anchor.memory import (
    anchors_of,
    head_of,
    load_matrix,
    load_tokens,
    load_vector,
    store_matrix,
    store_tokens,
)


@triton.jit
def offsets_of(offsets, head, heads, m, BLOCK_M: tl.constexpr, PER_HEAD: tl.constexpr, BIASED: tl.constexpr):
    """c (BLOCK_M) of a head, zero beyond m; zeros, and nothing read, where not BIASED."""
    if BIASED:
        rows = tl.arange(0, BLOCK_M)
        c = tl.load(anchors_of(offsets, head, heads, m, 1, PER_HEAD) + rows, mask=rows < m, other=0.0)
    else:
        c = tl.zeros((BLOCK_M,), dtype=tl.float32)
    return c


@triton.jit
def weights(
    tile_k, ut, offset, scale, start, n, m,
    PADDED: tl.constexpr, BIASED: tl.constexpr, PRECISION: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """A of a tile of tokens. MASKED: zero for tokens beyond n."""
    s = logits(tile_k, ut, 0, m, PADDED, PRECISION)
    if BIASED:
        s = s + offset[None, :]
    return softmax(s, scale, start, n, MASKED=MASKED)


@triton.jit
def stage_gather_kernel(
    k, x, anchors, offsets, times, partial, partial_degree, scale, n, m: tl.constexpr, heads, splits, span, k_strides,
    x_strides,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, PER_HEAD: tl.constexpr, BIASED: tl.constexpr, COUNTED: tl.constexpr,
    DEGREE: tl.constexpr,
):  # fmt: skip
    """Partial M and δ of one (head, split of `span` tokens)."""
    part = tl.program_id(0)
    head = part // splits
    low = (part % splits) * span
    u = load_matrix(anchors_of(anchors, head, heads, m, D, PER_HEAD), 0, m, BLOCK_M, D, D_PAD).to(k.dtype.element_ty)
    ut = tl.trans(u)
    offset = offsets_of(offsets, head, heads, m, BLOCK_M, PER_HEAD, BIASED)
    head_k = head_of(k, head, heads, k_strides)
    head_x = head_of(x, head, heads, x_strides)
    total = tl.zeros((BLOCK_M, D_PAD), dtype=tl.float32)
    degree = tl.zeros((BLOCK_M,), dtype=tl.float32)
    for start in range(low, tl.minimum(low + span, n), BLOCK_N):
        tile_k = load_tokens(head_k, start, n, k_strides, BLOCK_N, D, D_PAD, EVEN)
        tile_x = load_tokens(head_x, start, n, x_strides, BLOCK_N, D, D_PAD, EVEN)
        a = weights(tile_k, ut, offset, scale, start, n, m, PADDED, BIASED, PRECISION, MASKED=not EVEN)
        if COUNTED:
            a = a * load_vector(times + head.to(tl.int64) * n, start, n, BLOCK_N, 0.0)[:, None]
        narrow = a.to(tile_x.dtype)
        total = add_dot(tl.trans(narrow), tile_x, total, PRECISION)
        if DEGREE:  # of A as it is rounded: then a constant x is gathered exactly
            degree += tl.sum(narrow.to(tl.float32), 0)
    at = part.to(tl.int64) * m
    store_matrix(partial + at * D, total, 0, m, BLOCK_M, D, D_PAD)
    if DEGREE:
        rows = tl.arange(0, BLOCK_M)
        tl.store(partial_degree + at + rows, degree, mask=rows < m)


@triton.jit
def stage_scatter_kernel(
    k, anchors, offsets, means, inverse, out, share, scale, n, m: tl.constexpr, heads, chunks, span, k_strides,
    out_strides,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, PER_HEAD: tl.constexpr, BIASED: tl.constexpr, SHARE: tl.constexpr,
):  # fmt: skip
    """O, and s where SHARE, of one (head, chunk of `span` tokens)."""
    head = tl.program_id(0) // chunks
    low = (tl.program_id(0) % chunks) * span
    at = head.to(tl.int64) * m
    rows = tl.arange(0, BLOCK_M)
    u = load_matrix(anchors_of(anchors, head, heads, m, D, PER_HEAD), 0, m, BLOCK_M, D, D_PAD).to(k.dtype.element_ty)
    ut = tl.trans(u)
    offset = offsets_of(offsets, head, heads, m, BLOCK_M, PER_HEAD, BIASED)
    w = load_matrix(means + at * D, 0, m, BLOCK_M, D, D_PAD).to(k.dtype.element_ty)
    head_k = head_of(k, head, heads, k_strides)
    head_out = head_of(out, head, heads, out_strides)
    if SHARE:
        r = tl.load(inverse + at + rows, mask=rows < m, other=0.0)
    for start in range(low, tl.minimum(low + span, n), BLOCK_N):
        tile_k = load_tokens(head_k, start, n, k_strides, BLOCK_N, D, D_PAD, EVEN)
        a = weights(tile_k, ut, offset, scale, start, n, m, PADDED, BIASED, PRECISION, MASKED=False)
        narrow = a.to(tile_k.dtype)
        store_tokens(head_out, dot(narrow, w, PRECISION), start, n, out_strides, BLOCK_N, D, D_PAD, EVEN)
        if SHARE:
            rounded = narrow.to(tl.float32)
            tokens = start + tl.arange(0, BLOCK_N)
            own = tl.sum(rounded * rounded * r[None, :], 1)
            tl.store(share + head.to(tl.int64) * n + tokens, own, mask=tokens < n)


@triton.jit
def stage_gradient_kernel(
    k, x, anchors, offsets, times, y, e, inverse, grad_share, grad_k, grad_x, grad_partial, grad_offsets, grad_times,
    grad_inverse, scale, root, n, m: tl.constexpr, heads, chunks, span, k_strides, x_strides, grad_k_strides,
    grad_x_strides,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, PER_HEAD: tl.constexpr, BIASED: tl.constexpr,
    COUNTED: tl.constexpr, GATHERED: tl.constexpr, SHARE: tl.constexpr,
):  # fmt: skip
    """dK and partial dU and dc of one (head, chunk); of the gather (GATHERED) with e and dX = G A Y, where COUNTED with
    dg_i = Σ_a A_ia (X Yᵀ + 1 eᵀ)_ia; of the scatter where SHARE with what s gives: dA_ia = 2 A_ia r_a ds_i, and partial
    dr_a = Σ_i A_ia² ds_i."""
    part = tl.program_id(0)
    head = part // chunks
    low = (part % chunks) * span
    at = head.to(tl.int64) * m
    rows = tl.arange(0, BLOCK_M)
    dtype = k.dtype.element_ty
    u = load_matrix(anchors_of(anchors, head, heads, m, D, PER_HEAD), 0, m, BLOCK_M, D, D_PAD).to(dtype)
    ut = tl.trans(u)
    offset = offsets_of(offsets, head, heads, m, BLOCK_M, PER_HEAD, BIASED)
    factor = load_matrix(y + at * D, 0, m, BLOCK_M, D, D_PAD).to(dtype)
    factor_t = tl.trans(factor)
    head_k = head_of(k, head, heads, k_strides)
    head_x = head_of(x, head, heads, x_strides)
    head_grad_k = head_of(grad_k, head, heads, grad_k_strides)
    head_grad_x = head_of(grad_x, head, heads, grad_x_strides)
    if GATHERED:
        constant = tl.load(e + at + rows, mask=rows < m, other=0.0)
    if SHARE:
        r = tl.load(inverse + at + rows, mask=rows < m, other=0.0)
    du = tl.zeros((BLOCK_M, D_PAD), dtype=tl.float32)
    dc = tl.zeros((BLOCK_M,), dtype=tl.float32)
    dr = tl.zeros((BLOCK_M,), dtype=tl.float32)
    for start in range(low, tl.minimum(low + span, n), BLOCK_N):
        tile_k = load_tokens(head_k, start, n, k_strides, BLOCK_N, D, D_PAD, EVEN)
        tile_x = load_tokens(head_x, start, n, x_strides, BLOCK_N, D, D_PAD, EVEN)
        # Zero for tokens beyond n, which are to have no part in dc.
        a = weights(tile_k, ut, offset, scale, start, n, m, PADDED, BIASED, PRECISION, MASKED=not EVEN)
        da = dot(tile_x, factor_t, PRECISION)
        if GATHERED:
            da = da + constant[None, :]
        if SHARE:
            ds = load_vector(grad_share + head.to(tl.int64) * n, start, n, BLOCK_N, 0.0)
            da = da + 2.0 * a * r[None, :] * ds[:, None]
            dr += tl.sum(a * a * ds[:, None], 0)
        each = tl.sum(a * da, 1)
        if COUNTED:
            tokens = start + tl.arange(0, BLOCK_N)
            tl.store(grad_times + head.to(tl.int64) * n + tokens, each, mask=tokens < n)
            counted = load_vector(times + head.to(tl.int64) * n, start, n, BLOCK_N, 0.0)
            da = da * counted[:, None]
            each = each * counted
        dl = a * (da - each[:, None])
        narrow = dl.to(dtype)
        du = add_dot(tl.trans(narrow), tile_k, du, PRECISION)
        dk = dot(narrow, u, PRECISION) * root
        store_tokens(head_grad_k, dk, start, n, grad_k_strides, BLOCK_N, D, D_PAD, EVEN)
        if BIASED:
            dc += tl.sum(dl, 0)
        if GATHERED:
            given = a
            if COUNTED:
                given = a * counted[:, None]
            dx = dot(given.to(dtype), factor, PRECISION)
            store_tokens(head_grad_x, dx, start, n, grad_x_strides, BLOCK_N, D, D_PAD, EVEN)
    of_part = part.to(tl.int64) * m
    store_matrix(grad_partial + of_part * D, du * root, 0, m, BLOCK_M, D, D_PAD)
    if BIASED:
        tl.store(grad_offsets + of_part + rows, dc * root, mask=rows < m)
    if SHARE:
        tl.store(grad_inverse + of_part + rows, dr, mask=rows < m)

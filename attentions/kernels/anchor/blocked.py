"""Where m × d is too large for one tile: denominators first, then blocks of anchors (`gather_kernel` has both ways)."""

from __future__ import annotations

import triton
import triton.language as tl

from attentions.kernels.anchor.algebra import add_dot, logits, weight_gradients
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
def denominator_kernel(
    k, anchors, lse, scale, n, m, heads, k_strides,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, PER_HEAD: tl.constexpr,
):  # fmt: skip
    """Each token's log2 Σ_j 2^(logit·scale), (b·h, n) float32, anchors block after block with a running maximum."""
    tiles = tl.cdiv(n, BLOCK_N)
    head = tl.program_id(0) // tiles
    start = (tl.program_id(0) % tiles) * BLOCK_N
    anchors = anchors_of(anchors, head, heads, m, D, PER_HEAD)
    tile_k = load_tokens(head_of(k, head, heads, k_strides), start, n, k_strides, BLOCK_N, D, D_PAD, EVEN)
    top = tl.full((BLOCK_N,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_N,), dtype=tl.float32)
    for first in range(0, m, BLOCK_M):
        u = load_matrix(anchors, first, m, BLOCK_M, D, D_PAD).to(k.dtype.element_ty)
        s = logits(tile_k, tl.trans(u), first, m, PADDED, PRECISION) * scale
        higher = tl.maximum(top, tl.max(s, 1))  # finite: every block holds at least one anchor
        total = total * tl.exp2(top - higher) + tl.sum(tl.exp2(s - higher[:, None]), 1)
        top = higher
    rows = start + tl.arange(0, BLOCK_N)
    tl.store(lse + head.to(tl.int64) * n + rows, top + tl.log2(total), mask=rows < n)


@triton.jit
def scatter_blocked_kernel(
    k, anchors, means, lse, out, scale, n, m, heads, k_strides, out_strides,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, PER_HEAD: tl.constexpr,
):  # fmt: skip
    """O of one tile of tokens, summed over blocks of anchors."""
    tiles = tl.cdiv(n, BLOCK_N)
    head = tl.program_id(0) // tiles
    start = (tl.program_id(0) % tiles) * BLOCK_N
    anchors = anchors_of(anchors, head, heads, m, D, PER_HEAD)
    at = head.to(tl.int64) * m
    tile_k = load_tokens(head_of(k, head, heads, k_strides), start, n, k_strides, BLOCK_N, D, D_PAD, EVEN)
    denominator = load_vector(lse + head.to(tl.int64) * n, start, n, BLOCK_N, 0.0)
    o = tl.zeros((BLOCK_N, D_PAD), dtype=tl.float32)
    for first in range(0, m, BLOCK_M):
        u = load_matrix(anchors, first, m, BLOCK_M, D, D_PAD).to(k.dtype.element_ty)
        w = load_matrix(means + at * D, first, m, BLOCK_M, D, D_PAD).to(k.dtype.element_ty)
        s = logits(tile_k, tl.trans(u), first, m, PADDED, PRECISION)
        a = tl.exp2(s * scale - denominator[:, None])
        o = add_dot(a.to(tile_k.dtype), w, o, PRECISION)
    head_out = head_of(out, head, heads, out_strides)
    store_tokens(head_out, o, start, n, out_strides, BLOCK_N, D, D_PAD, EVEN, EVICT="evict_first")


@triton.jit
def backward_tokens_kernel(
    k, v, g, anchors, means, grad_sums, grad_degree, lse, balance, grad_k, grad_v, scale, root, n, m, heads,
    k_strides, v_strides, g_strides, grad_k_strides, grad_v_strides,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, PER_HEAD: tl.constexpr,
):  # fmt: skip
    """dK and dV of one tile of tokens. Writes balance_i = Σ_j A_ij dA_ij, (b·h, n), which dU needs too.

    The balance is summed as it stands, not as G·O + V·dV + A dδ: with O rounded to 16 bits the rows of dS would not
    sum to zero, and O would have to be kept for backward.
    """
    tiles = tl.cdiv(n, BLOCK_N)
    head = tl.program_id(0) // tiles
    start = (tl.program_id(0) % tiles) * BLOCK_N
    anchors = anchors_of(anchors, head, heads, m, D, PER_HEAD)
    at = head.to(tl.int64) * m
    dtype = k.dtype.element_ty
    tile_k = load_tokens(head_of(k, head, heads, k_strides), start, n, k_strides, BLOCK_N, D, D_PAD, EVEN)
    tile_v = load_tokens(head_of(v, head, heads, v_strides), start, n, v_strides, BLOCK_N, D, D_PAD, EVEN)
    tile_g = load_tokens(head_of(g, head, heads, g_strides), start, n, g_strides, BLOCK_N, D, D_PAD, EVEN)
    denominator = load_vector(lse + head.to(tl.int64) * n, start, n, BLOCK_N, 0.0)
    r = tl.zeros((BLOCK_N,), dtype=tl.float32)
    dv = tl.zeros((BLOCK_N, D_PAD), dtype=tl.float32)
    for first in range(0, m, BLOCK_M):
        rows = first + tl.arange(0, BLOCK_M)
        u = load_matrix(anchors, first, m, BLOCK_M, D, D_PAD).to(dtype)
        w = load_matrix(means + at * D, first, m, BLOCK_M, D, D_PAD).to(dtype)
        dm = load_matrix(grad_sums + at * D, first, m, BLOCK_M, D, D_PAD).to(dtype)
        dd = tl.load(grad_degree + at + rows, mask=rows < m, other=0.0)
        a = tl.exp2(logits(tile_k, tl.trans(u), first, m, PADDED, PRECISION) * scale - denominator[:, None])
        r += tl.sum(a * weight_gradients(tile_v, tile_g, tl.trans(w), tl.trans(dm), dd, PRECISION), 1)
        dv = add_dot(a.to(dtype), dm, dv, PRECISION)
    store_tokens(head_of(grad_v, head, heads, grad_v_strides), dv, start, n, grad_v_strides, BLOCK_N, D, D_PAD, EVEN)
    tokens = start + tl.arange(0, BLOCK_N)
    tl.store(balance + head.to(tl.int64) * n + tokens, r, mask=tokens < n)
    dk = tl.zeros((BLOCK_N, D_PAD), dtype=tl.float32)
    for first in range(0, m, BLOCK_M):
        rows = first + tl.arange(0, BLOCK_M)
        u = load_matrix(anchors, first, m, BLOCK_M, D, D_PAD).to(dtype)
        w = load_matrix(means + at * D, first, m, BLOCK_M, D, D_PAD).to(dtype)
        dm = load_matrix(grad_sums + at * D, first, m, BLOCK_M, D, D_PAD).to(dtype)
        dd = tl.load(grad_degree + at + rows, mask=rows < m, other=0.0)
        a = tl.exp2(logits(tile_k, tl.trans(u), first, m, PADDED, PRECISION) * scale - denominator[:, None])
        da = weight_gradients(tile_v, tile_g, tl.trans(w), tl.trans(dm), dd, PRECISION)
        dk = add_dot((a * (da - r[:, None])).to(dtype), u, dk, PRECISION)
    head_grad = head_of(grad_k, head, heads, grad_k_strides)
    store_tokens(head_grad, dk * root, start, n, grad_k_strides, BLOCK_N, D, D_PAD, EVEN)


@triton.jit
def backward_anchors_kernel(
    k, v, g, anchors, means, grad_sums, grad_degree, lse, balance, grad_partial, scale, root, n, m, heads, splits,
    span, k_strides, v_strides, g_strides,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, PER_HEAD: tl.constexpr,
):  # fmt: skip
    """A partial dU of one (head, split, block of anchors)."""
    blocks = tl.cdiv(m, BLOCK_M)
    first = (tl.program_id(0) % blocks) * BLOCK_M
    part = tl.program_id(0) // blocks
    head = part // splits
    low = (part % splits) * span
    anchors = anchors_of(anchors, head, heads, m, D, PER_HEAD)
    at = head.to(tl.int64) * m
    dtype = k.dtype.element_ty
    rows = first + tl.arange(0, BLOCK_M)
    u = load_matrix(anchors, first, m, BLOCK_M, D, D_PAD).to(dtype)
    w = load_matrix(means + at * D, first, m, BLOCK_M, D, D_PAD).to(dtype)
    dm = load_matrix(grad_sums + at * D, first, m, BLOCK_M, D, D_PAD).to(dtype)
    dd = tl.load(grad_degree + at + rows, mask=rows < m, other=0.0)
    head_k = head_of(k, head, heads, k_strides)
    head_v = head_of(v, head, heads, v_strides)
    head_g = head_of(g, head, heads, g_strides)
    head_lse = lse + head.to(tl.int64) * n
    head_balance = balance + head.to(tl.int64) * n
    ut, wt, dmt = tl.trans(u), tl.trans(w), tl.trans(dm)
    du = tl.zeros((BLOCK_M, D_PAD), dtype=tl.float32)
    for start in range(low, tl.minimum(low + span, n), BLOCK_N):
        tile_k = load_tokens(head_k, start, n, k_strides, BLOCK_N, D, D_PAD, EVEN)
        tile_v = load_tokens(head_v, start, n, v_strides, BLOCK_N, D, D_PAD, EVEN)
        tile_g = load_tokens(head_g, start, n, g_strides, BLOCK_N, D, D_PAD, EVEN)
        s = logits(tile_k, ut, first, m, PADDED, PRECISION)
        a = tl.exp2(s * scale - load_vector(head_lse, start, n, BLOCK_N, 0.0)[:, None])
        da = weight_gradients(tile_v, tile_g, wt, dmt, dd, PRECISION)
        ds = a * (da - load_vector(head_balance, start, n, BLOCK_N, 0.0)[:, None])
        du = add_dot(tl.trans(ds.to(dtype)), tile_k, du, PRECISION)
    store_matrix(grad_partial + part.to(tl.int64) * m * D, du * root, first, m, BLOCK_M, D, D_PAD)

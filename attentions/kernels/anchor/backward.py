"""The second stage of the backward pass: dK, dV and each chunk's share of dU, from K, V and G read once."""

# ruff: noqa: SIM108 - Triton compiles an `if` on a constant to one branch; of `x if c else y` it must type both.

from __future__ import annotations

import triton
import triton.language as tl

from attentions.kernels.anchor.algebra import add_dot, dot, logits, mean_gradients_of, softmax, weight_gradients
from attentions.kernels.anchor.memory import anchors_of, head_of, load_matrix, load_tokens, store_matrix, store_tokens
from attentions.kernels.anchor.sums import sum_splits


@triton.jit
def differentiate(
    k, v, g, grad_k, grad_v, u, ut, w, dm, dd, low, high, n,
    k_strides, v_strides, g_strides, grad_k_strides, grad_v_strides, scale, root, m,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, WGMMA: tl.constexpr,
):  # fmt: skip
    """dK and dV of the tokens [low, high), and their share of dU; root = 1/√d, ut and WGMMA as in `gather`.

    dV is formed after dS although A was there before: kept, it would take registers through the widest part.
    """
    FLIPPED: tl.constexpr = k.dtype.element_ty != tl.float32 and WGMMA and D_PAD >= 64
    wt, dmt = tl.trans(w), tl.trans(dm)
    if FLIPPED:
        du = tl.zeros((D_PAD, BLOCK_M), dtype=tl.float32)
    else:
        du = tl.zeros((BLOCK_M, D_PAD), dtype=tl.float32)
    for start in range(low, high, BLOCK_N):
        tile_k = load_tokens(k, start, n, k_strides, BLOCK_N, D, D_PAD, EVEN, EVICT="evict_first")
        tile_v = load_tokens(v, start, n, v_strides, BLOCK_N, D, D_PAD, EVEN, EVICT="evict_first")
        tile_g = load_tokens(g, start, n, g_strides, BLOCK_N, D, D_PAD, EVEN, EVICT="evict_first")
        a = softmax(logits(tile_k, ut, 0, m, PADDED, PRECISION), scale, start, n, MASKED=False)
        narrow = a.to(tile_k.dtype)
        da = weight_gradients(tile_v, tile_g, wt, dmt, dd, PRECISION)
        # 1/√d is applied to dK and dU, not here: in float16 dS is small enough already. Tokens beyond n add nothing
        # to dU, because their rows of K are zero.
        ds = (a * (da - tl.sum(a * da, 1)[:, None])).to(tile_k.dtype)
        if FLIPPED:
            du = add_dot(tl.trans(tile_k), ds, du, PRECISION)
        else:
            du = add_dot(tl.trans(ds), tile_k, du, PRECISION)
        dv = dot(narrow, dm, PRECISION)
        dk = dot(ds, u, PRECISION) * root
        store_tokens(grad_v, dv, start, n, grad_v_strides, BLOCK_N, D, D_PAD, EVEN, EVICT="evict_first")
        store_tokens(grad_k, dk, start, n, grad_k_strides, BLOCK_N, D, D_PAD, EVEN, EVICT="evict_first")
    if FLIPPED:
        du = tl.trans(du)
    return du * root


@triton.jit
def backward_kernel(
    k, v, g, anchors, means, degree, partial, grad_sums, grad_degree, grad_k, grad_v, grad_partial,
    scale, root, n, m: tl.constexpr, heads, splits, chunks, span,
    k_strides, v_strides, g_strides, grad_k_strides, grad_v_strides,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, REDUCED: tl.constexpr, WGMMA: tl.constexpr, PER_HEAD: tl.constexpr,
):  # fmt: skip
    """dK, dV and a partial dU of one (head, chunk of `span` tokens). Not REDUCED: adds the gather's splits itself."""
    part = tl.program_id(0)
    head = part // chunks
    chunk = part % chunks
    at = head.to(tl.int64) * m
    rows = tl.arange(0, BLOCK_M)
    anchors = anchors_of(anchors, head, heads, m, D, PER_HEAD)
    u = load_matrix(anchors, 0, m, BLOCK_M, D, D_PAD).to(k.dtype.element_ty)
    w = load_matrix(means + at * D, 0, m, BLOCK_M, D, D_PAD)
    if REDUCED:
        dm = load_matrix(grad_sums + at * D, 0, m, BLOCK_M, D, D_PAD)
        dd = tl.load(grad_degree + at + rows, mask=rows < m, other=0.0)
    else:
        total, _ = sum_splits(partial, partial, head, splits, m, BLOCK_M, D, D_PAD, DEGREE=False)
        dm, dd = mean_gradients_of(total, w, tl.load(degree + at + rows, mask=rows < m, other=0.0))
    low = chunk * span
    du = differentiate(
        head_of(k, head, heads, k_strides), head_of(v, head, heads, v_strides), head_of(g, head, heads, g_strides),
        head_of(grad_k, head, heads, grad_k_strides), head_of(grad_v, head, heads, grad_v_strides),
        u, tl.trans(u), w.to(k.dtype.element_ty), dm.to(k.dtype.element_ty), dd, low, tl.minimum(low + span, n), n,
        k_strides, v_strides, g_strides, grad_k_strides, grad_v_strides, scale, root, m,
        BLOCK_N=BLOCK_N, BLOCK_M=BLOCK_M, D=D, D_PAD=D_PAD, EVEN=EVEN, PADDED=PADDED, PRECISION=PRECISION, WGMMA=WGMMA,
    )  # fmt: skip
    store_matrix(grad_partial + part.to(tl.int64) * m * D, du, 0, m, BLOCK_M, D, D_PAD)

"""Gather and scatter, the two stages of the forward pass; `gather` serves the backward pass and the blocked way too.

Matrices that a loop multiplies with are transposed before it, so that they are put into shared memory once. m, where
all anchors are in one tile, is a constant of the compiled kernel.
"""

# ruff: noqa: SIM108 - Triton compiles an `if` on a constant to one branch; of `x if c else y` it must type both.

from __future__ import annotations

import triton
import triton.language as tl

from attentions.kernels.anchor.algebra import add_dot, dot, logits, means_of, softmax
from attentions.kernels.anchor.memory import (
    PLAIN,
    anchors_of,
    head_of,
    load_matrix,
    load_tokens,
    load_vector,
    store_matrix,
    store_tokens,
)
from attentions.kernels.anchor.sums import sum_splits


@triton.jit
def gather(
    k, v, lse, ut, low, high, n, k_strides, v_strides, scale, first, m,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, BLOCKED: tl.constexpr, DEGREE: tl.constexpr, PRECISION: tl.constexpr,
    WGMMA: tl.constexpr, EVICT_V: tl.constexpr = PLAIN,
):  # fmt: skip
    """AᵀV (BLOCK_M, D_PAD) and Aᵀ1 (BLOCK_M) over the tokens [low, high); ut: the anchors, transposed outside any loop.

    WGMMA: products by Hopper's warpgroups, 64 rows an instruction and the right factor from shared memory. The sum is
    then kept as VᵀA, whose rows are d ≥ 64 whatever m is, and A is written to shared memory once.
    """
    NARROW: tl.constexpr = k.dtype.element_ty != tl.float32
    FLIPPED: tl.constexpr = NARROW and WGMMA and D_PAD >= 64
    if FLIPPED:
        total = tl.zeros((D_PAD, BLOCK_M), dtype=tl.float32)
    else:
        total = tl.zeros((BLOCK_M, D_PAD), dtype=tl.float32)
    # In 16 bits the degrees come from the tensor cores, as AᵀV does: A times ones, constants of as many rows or columns
    # as one instruction has. Summing a tile's columns in registers takes shuffles across each warp in every tile; and
    # the degree of the rounded A is the one that makes W an average (constant V gives exactly V).
    if not NARROW:
        degree = tl.zeros((BLOCK_M,), dtype=tl.float32)
    elif WGMMA:
        ones = tl.full((64, BLOCK_N), 1.0, dtype=tl.float32).to(k.dtype.element_ty)
        degree = tl.zeros((64, BLOCK_M), dtype=tl.float32)
    else:
        ones = tl.full((BLOCK_N, 16), 1.0, dtype=tl.float32).to(k.dtype.element_ty)
        degree = tl.zeros((BLOCK_M, 16), dtype=tl.float32)
    for start in range(low, high, BLOCK_N):
        tile_k = load_tokens(k, start, n, k_strides, BLOCK_N, D, D_PAD, EVEN)
        tile_v = load_tokens(v, start, n, v_strides, BLOCK_N, D, D_PAD, EVEN, EVICT=EVICT_V)
        s = logits(tile_k, ut, first, m, PADDED, PRECISION)
        # A is zero for tokens beyond n, which are to have no part in the degrees.
        if BLOCKED:
            a = tl.exp2(s * scale - load_vector(lse, start, n, BLOCK_N, float("inf"))[:, None])
        else:
            a = softmax(s, scale, start, n, MASKED=not EVEN)
        narrow = a.to(tile_v.dtype)
        if FLIPPED:
            total = add_dot(tl.trans(tile_v), narrow, total, PRECISION)
        else:
            total = add_dot(tl.trans(narrow), tile_v, total, PRECISION)
        if DEGREE:
            if not NARROW:
                degree += tl.sum(a, 0)
            elif WGMMA:
                degree = add_dot(ones, narrow, degree, PRECISION)
            else:
                degree = add_dot(tl.trans(narrow), ones, degree, PRECISION)
    if not NARROW:
        counted = degree
    elif WGMMA:
        counted = tl.max(degree, 0)  # 64 equal rows
    else:
        counted = tl.max(degree, 1)  # 16 equal columns
    if FLIPPED:
        total = tl.trans(total)
    return total, counted


@triton.jit
def scatter(
    k, out, ut, w, low, high, n, k_strides, out_strides, scale, m,
    BLOCK_N: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr, PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """O = A W for the tokens [low, high)."""
    for start in range(low, high, BLOCK_N):
        tile_k = load_tokens(k, start, n, k_strides, BLOCK_N, D, D_PAD, EVEN, EVICT="evict_first")
        a = softmax(logits(tile_k, ut, 0, m, PADDED, PRECISION), scale, start, n, MASKED=False)
        o = dot(a.to(tile_k.dtype), w, PRECISION)
        store_tokens(out, o, start, n, out_strides, BLOCK_N, D, D_PAD, EVEN, EVICT="evict_first")


@triton.jit
def gather_kernel(
    k, v, anchors, lse, partial, partial_degree, scale, n, m: tl.constexpr, heads, splits, span, k_strides, v_strides,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, BLOCKED: tl.constexpr, DEGREE: tl.constexpr, PRECISION: tl.constexpr, WGMMA: tl.constexpr,
    PER_HEAD: tl.constexpr,
):  # fmt: skip
    """Partial AᵀV and Aᵀ1 of one (head, split, block of anchors); a split is `span` tokens."""
    blocks = tl.cdiv(m, BLOCK_M)
    first = (tl.program_id(0) % blocks) * BLOCK_M  # neighbours share K and V through L2
    part = tl.program_id(0) // blocks
    head = part // splits
    low = (part % splits) * span
    anchors = anchors_of(anchors, head, heads, m, D, PER_HEAD)
    u = load_matrix(anchors, first, m, BLOCK_M, D, D_PAD).to(k.dtype.element_ty)
    total, degree = gather(
        head_of(k, head, heads, k_strides), head_of(v, head, heads, v_strides), lse + head.to(tl.int64) * n,
        tl.trans(u), low, tl.minimum(low + span, n), n, k_strides, v_strides, scale, first, m,
        BLOCK_N=BLOCK_N, BLOCK_M=BLOCK_M, D=D, D_PAD=D_PAD, EVEN=EVEN, PADDED=PADDED, BLOCKED=BLOCKED, DEGREE=DEGREE,
        PRECISION=PRECISION, WGMMA=WGMMA,
    )  # fmt: skip
    at = part.to(tl.int64) * m
    store_matrix(partial + at * D, total, first, m, BLOCK_M, D, D_PAD)
    if DEGREE:
        rows = first + tl.arange(0, BLOCK_M)
        tl.store(partial_degree + at + rows, degree, mask=rows < m)


@triton.jit
def scatter_kernel(
    k, anchors, partial, partial_degree, means, degree, out, scale, n, m: tl.constexpr, heads, parts, splits, chunks,
    span, k_strides, out_strides,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, REDUCED: tl.constexpr, PER_HEAD: tl.constexpr,
):  # fmt: skip
    """O of one (head, chunk of `span` tokens); parts = b·h. Not REDUCED: adds the few splits of the gather itself.

    Heads run backwards: those that the gather read last are the ones whose K is still in L2.
    """
    head = parts - 1 - tl.program_id(0) // chunks
    chunk = tl.program_id(0) % chunks
    at = head.to(tl.int64) * m
    anchors = anchors_of(anchors, head, heads, m, D, PER_HEAD)
    u = load_matrix(anchors, 0, m, BLOCK_M, D, D_PAD).to(k.dtype.element_ty)
    if REDUCED:
        w = load_matrix(means + at * D, 0, m, BLOCK_M, D, D_PAD)
    else:
        total, counted = sum_splits(partial, partial_degree, head, splits, m, BLOCK_M, D, D_PAD, DEGREE=True)
        w = means_of(total, counted)
        if chunk == 0:
            rows = tl.arange(0, BLOCK_M)
            store_matrix(means + at * D, w, 0, m, BLOCK_M, D, D_PAD)
            tl.store(degree + at + rows, counted, mask=rows < m)
    low = chunk * span
    scatter(
        head_of(k, head, heads, k_strides), head_of(out, head, heads, out_strides), tl.trans(u),
        w.to(k.dtype.element_ty), low, tl.minimum(low + span, n), n, k_strides, out_strides, scale, m,
        BLOCK_N=BLOCK_N, D=D, D_PAD=D_PAD, EVEN=EVEN, PADDED=PADDED, PRECISION=PRECISION,
    )  # fmt: skip

"""The two launches of `split` with the second begun early, or with tokens loaded by tensor maps, or both.

EARLY: `gdc_launch_dependents` at the head of the gather lets the scatter's programs take the places that gathering
programs leave; they load the anchors, then `gdc_wait` until all of the gather is done and seen. All else that the
scatter reads (K, the anchors) is an input, and it writes after the wait only. It needs its launch's `launch_pdl`.

MAPPED: a program makes a tensor map of its head, (n, D) of any stride, and the copies of a tile are one instruction of
one thread. What lies beyond n or D arrives as zeros.

EVICT_K, EVICT_V: V, which is read once, may leave L2 first, and K, which the scatter reads again, should stay. Triton
3.6 has no such hints for asynchronous copies: there they change nothing.
"""

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
    store_matrix,
    store_tokens,
)
from attentions.kernels.anchor.sums import sum_splits


@triton.jit
def tokens_of(
    pointer, n, strides, BLOCK_N: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, MAPPED: tl.constexpr
):  # fmt: skip
    """What `tile_of` loads a head's tokens from: its tensor map, or where it begins."""
    if MAPPED:
        source = tl.make_tensor_descriptor(
            pointer, shape=[n, D], strides=[strides[2], 1], block_shape=[BLOCK_N, D_PAD]
        )  # fmt: skip
    else:
        source = pointer
    return source


@triton.jit
def tile_of(
    source, start, n, strides,
    BLOCK_N: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr, MAPPED: tl.constexpr,
    EVICT: tl.constexpr = PLAIN,
):  # fmt: skip
    """(BLOCK_N, D_PAD) of a head: tokens from `start`, zero beyond n and D."""
    if MAPPED:
        tile = source.load([start, 0])
    else:
        tile = load_tokens(source, start, n, strides, BLOCK_N, D, D_PAD, EVEN, EVICT=EVICT)
    return tile


@triton.jit
def launched_gather_kernel(
    k, v, anchors, lse, partial, partial_degree, scale, n, m: tl.constexpr, heads, splits, span, k_strides, v_strides,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, BLOCKED: tl.constexpr, DEGREE: tl.constexpr, PRECISION: tl.constexpr, WGMMA: tl.constexpr,
    PER_HEAD: tl.constexpr, EARLY: tl.constexpr, MAPPED: tl.constexpr, EVICT_K: tl.constexpr, EVICT_V: tl.constexpr,
):  # fmt: skip
    """whole.gather_kernel where all anchors are in one tile."""
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
    head = tl.program_id(0) // splits
    low = (tl.program_id(0) % splits) * span
    anchors = anchors_of(anchors, head, heads, m, D, PER_HEAD)
    ut = tl.trans(load_matrix(anchors, 0, m, BLOCK_M, D, D_PAD).to(k.dtype.element_ty))
    from_k = tokens_of(head_of(k, head, heads, k_strides), n, k_strides, BLOCK_N, D, D_PAD, MAPPED)
    from_v = tokens_of(head_of(v, head, heads, v_strides), n, v_strides, BLOCK_N, D, D_PAD, MAPPED)
    ones = tl.full((64, BLOCK_N), 1.0, dtype=tl.float32).to(k.dtype.element_ty)
    total = tl.zeros((D_PAD, BLOCK_M), dtype=tl.float32)
    counted = tl.zeros((64, BLOCK_M), dtype=tl.float32)
    for start in range(low, tl.minimum(low + span, n), BLOCK_N):
        tile_k = tile_of(from_k, start, n, k_strides, BLOCK_N, D, D_PAD, EVEN, MAPPED, EVICT=EVICT_K)
        tile_v = tile_of(from_v, start, n, v_strides, BLOCK_N, D, D_PAD, EVEN, MAPPED, EVICT=EVICT_V)
        a = softmax(logits(tile_k, ut, 0, m, PADDED, PRECISION), scale, start, n, MASKED=not EVEN).to(tile_v.dtype)
        total = add_dot(tl.trans(tile_v), a, total, PRECISION)
        counted = add_dot(ones, a, counted, PRECISION)
    at = tl.program_id(0).to(tl.int64) * m
    rows = tl.arange(0, BLOCK_M)
    store_matrix(partial + at * D, tl.trans(total), 0, m, BLOCK_M, D, D_PAD)
    tl.store(partial_degree + at + rows, tl.max(counted, 0), mask=rows < m)


@triton.jit
def launched_scatter_kernel(
    k, anchors, partial, partial_degree, means, degree, out, scale, n, m: tl.constexpr, heads, parts, splits, chunks,
    span, k_strides, out_strides,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, REDUCED: tl.constexpr, PER_HEAD: tl.constexpr,
    EARLY: tl.constexpr, MAPPED: tl.constexpr,
):  # fmt: skip
    """whole.scatter_kernel where it adds the splits itself."""
    head = parts - 1 - tl.program_id(0) // chunks
    chunk = tl.program_id(0) % chunks
    at = head.to(tl.int64) * m
    anchors = anchors_of(anchors, head, heads, m, D, PER_HEAD)
    ut = tl.trans(load_matrix(anchors, 0, m, BLOCK_M, D, D_PAD).to(k.dtype.element_ty))
    from_k = tokens_of(head_of(k, head, heads, k_strides), n, k_strides, BLOCK_N, D, D_PAD, MAPPED)
    if EARLY:
        tl.extra.cuda.gdc_wait()
    total, counted = sum_splits(partial, partial_degree, head, splits, m, BLOCK_M, D, D_PAD, DEGREE=True)
    w = means_of(total, counted)
    if chunk == 0:
        rows = tl.arange(0, BLOCK_M)
        store_matrix(means + at * D, w, 0, m, BLOCK_M, D, D_PAD)
        tl.store(degree + at + rows, counted, mask=rows < m)
    w = w.to(k.dtype.element_ty)
    low = chunk * span
    out = head_of(out, head, heads, out_strides)
    for start in range(low, tl.minimum(low + span, n), BLOCK_N):
        tile_k = tile_of(from_k, start, n, k_strides, BLOCK_N, D, D_PAD, EVEN, MAPPED)
        a = softmax(logits(tile_k, ut, 0, m, PADDED, PRECISION), scale, start, n, MASKED=False)
        o = dot(a.to(tile_k.dtype), w, PRECISION)
        store_tokens(out, o, start, n, out_strides, BLOCK_N, D, D_PAD, EVEN, EVICT="evict_first")

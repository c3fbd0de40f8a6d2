"""Sums over the splits of a head, in an order that depends on nothing but their number, so that results repeat.

Few splits are added by the launch that needs the sum; many by a launch of their own (`means_kernel`,
`mean_gradients_kernel`). `anchor_gradient_kernel` adds dU over everything, `head_gradient_kernel` that of each head.
"""

from __future__ import annotations

import triton
import triton.language as tl

from attentions.kernels.anchor.algebra import mean_gradients_of, means_of
from attentions.kernels.anchor.memory import load_matrix, store_matrix


@triton.jit
def sum_splits(
    partial, partial_degree, head, splits, m,
    BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, DEGREE: tl.constexpr,
):  # fmt: skip
    """Sum of a head's partial (m, d) matrices and degrees, split after split: few splits, all rows at once."""
    rows = tl.arange(0, BLOCK_M)
    total = tl.zeros((BLOCK_M, D_PAD), dtype=tl.float32)
    degree = tl.zeros((BLOCK_M,), dtype=tl.float32)
    at = head.to(tl.int64) * splits
    for split in range(0, splits, 2):  # two at a time, so that their loads are in flight together
        also = tl.where(split + 1 < splits, m, 0)
        here, there = (at + split) * m, (at + split + 1) * m
        one = load_matrix(partial + here * D, 0, m, BLOCK_M, D, D_PAD)
        two = load_matrix(partial + there * D, 0, also, BLOCK_M, D, D_PAD)
        total = total + one + two
        if DEGREE:
            one_degree = tl.load(partial_degree + here + rows, mask=rows < m, other=0.0)
            two_degree = tl.load(partial_degree + there + rows, mask=rows < also, other=0.0)
            degree = degree + one_degree + two_degree
    return total, degree


@triton.jit
def sum_slice(
    partial, partial_degree, head, splits, first, m,
    ROWS: tl.constexpr, WIDE: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, DEGREE: tl.constexpr,
):  # fmt: skip
    """The same for ROWS anchors from `first`, WIDE splits at a time: many splits, so that many loads are in flight.

    Lane l adds the splits l, l + WIDE, … in order, then the lanes are added in a tree. What is read once need not pass
    through L1 (.cg).
    """
    lane = tl.arange(0, WIDE)
    rows = first + tl.arange(0, ROWS)
    columns = tl.arange(0, D_PAD)
    inside = (lane * m * D)[:, None, None] + (rows[:, None] * D + columns[None, :])[None, :, :]
    mask = ((rows < m)[:, None] & (columns < D)[None, :])[None, :, :]
    inside_degree = (lane * m)[:, None] + rows[None, :]
    total = tl.zeros((WIDE, ROWS, D_PAD), dtype=tl.float32)
    degree = tl.zeros((WIDE, ROWS), dtype=tl.float32)
    at = head.to(tl.int64) * splits * m
    base = partial + at * D
    base_degree = partial_degree + at
    for start in range(0, splits, WIDE):
        there = lane < splits - start
        total += tl.load(base + inside, mask=there[:, None, None] & mask, other=0.0, cache_modifier=".cg")
        base += tl.cast(m, tl.int64) * D * WIDE
        if DEGREE:
            counted = there[:, None] & (rows < m)[None, :]
            degree += tl.load(base_degree + inside_degree, mask=counted, other=0.0, cache_modifier=".cg")
            base_degree += m * WIDE
    return tl.sum(total, 0), tl.sum(degree, 0)


@triton.jit
def means_kernel(
    partial, partial_degree, means, degree, splits, m: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
):  # fmt: skip
    """W and δ from the splits, one program for ROWS anchors of a head."""
    slices = tl.cdiv(m, ROWS)
    head = tl.program_id(0) // slices
    first = (tl.program_id(0) % slices) * ROWS
    total, counted = sum_slice(
        partial, partial_degree, head, splits, first, m, ROWS=ROWS, WIDE=WIDE, D=D, D_PAD=D_PAD, DEGREE=True
    )
    rows = first + tl.arange(0, ROWS)
    at = head.to(tl.int64) * m
    store_matrix(means + at * D, means_of(total, counted), first, m, ROWS, D, D_PAD)
    tl.store(degree + at + rows, counted, mask=rows < m)


@triton.jit
def mean_gradients_kernel(
    partial, means, degree, grad_sums, grad_degree, splits, m: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
):  # fmt: skip
    """dM and dδ from the splits, one program for ROWS anchors of a head."""
    slices = tl.cdiv(m, ROWS)
    head = tl.program_id(0) // slices
    first = (tl.program_id(0) % slices) * ROWS
    total, _ = sum_slice(partial, partial, head, splits, first, m, ROWS=ROWS, WIDE=WIDE, D=D, D_PAD=D_PAD, DEGREE=False)
    rows = first + tl.arange(0, ROWS)
    at = head.to(tl.int64) * m
    w = load_matrix(means + at * D, first, m, ROWS, D, D_PAD)
    d = tl.load(degree + at + rows, mask=rows < m, other=0.0)
    grad_sum, grad_d = mean_gradients_of(total, w, d)
    store_matrix(grad_sums + at * D, grad_sum, first, m, ROWS, D, D_PAD)
    tl.store(grad_degree + at + rows, grad_d, mask=rows < m)


@triton.jit
def anchor_gradient_kernel(partial, grad_anchors, parts, size, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    """dU: the sum over all heads and splits of partial (m, d) matrices of `size` elements."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    lane = tl.arange(0, WIDE)
    total = tl.zeros((WIDE, BLOCK), dtype=tl.float32)
    for start in range(0, parts, WIDE):
        part = start + lane
        total += tl.load(
            partial + (part.to(tl.int64) * size)[:, None] + at[None, :],
            mask=(part < parts)[:, None] & (at < size)[None, :], other=0.0,
        )  # fmt: skip
    tl.store(grad_anchors + at, tl.sum(total, 0).to(grad_anchors.dtype.element_ty), mask=at < size)


@triton.jit
def head_gradient_kernel(
    partial, grad_anchors, parts, size, heads, chunks, BLOCK: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """dU of anchors of each head's own: the sum over images and chunks, for BLOCK elements of a head's m·d = size.

    parts: of `partial`, head after head of an image after the other, `chunks` of each.
    """
    blocks = tl.cdiv(size, BLOCK)
    head = tl.program_id(0) // blocks
    at = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    lane = tl.arange(0, WIDE)
    total = tl.zeros((WIDE, BLOCK), dtype=tl.float32)
    of_a_head = parts // heads
    for start in range(0, of_a_head, WIDE):
        one = start + lane
        part = ((one // chunks) * heads + head) * chunks + one % chunks
        total += tl.load(
            partial + (part.to(tl.int64) * size)[:, None] + at[None, :],
            mask=(one < of_a_head)[:, None] & (at < size)[None, :], other=0.0,
        )  # fmt: skip
    values = tl.sum(total, 0).to(grad_anchors.dtype.element_ty)
    tl.store(grad_anchors + head * size + at, values, mask=at < size)

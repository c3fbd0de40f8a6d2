"""Loading and storing: everything that knows how a tensor lies in memory.

Token tensors (b, h, n, d) have any batch, head and token strides and a contiguous last dimension. A kernel takes each
as a pointer and one tuple of strides, (batch, head, token). The first two are numbers at run time, for they grow with
n, and as constants they would compile a kernel for every n. The stride between tokens depends on h and d alone and is
a constant inside the tuple (tl.constexpr): offsets inside a tile then are immediate, which saves a third of the
registers. Offsets to a tile are formed in 64 bits, those inside it in 32. d is padded to a power of two.

Matrices of a head (sums, means, anchors) are compact, (m, d).
"""

# ruff: noqa: SIM108 - Triton compiles an `if` on a constant to one branch; of `x if c else y` it must type both.

from __future__ import annotations

import triton
import triton.language as tl

# No hint to the caches. As a default of a parameter a text must be wrapped: Triton 3.6 does not do it itself.
PLAIN = tl.constexpr("")


@triton.jit
def head_of(pointer, head, heads, strides):
    """A (b, h, ·, ·) tensor's head `head` = batch · heads + place."""
    return pointer + ((head // heads).to(tl.int64) * strides[0] + (head % heads).to(tl.int64) * strides[1])


@triton.jit
def anchors_of(pointer, head, heads, m, D: tl.constexpr, PER_HEAD: tl.constexpr):
    """A head's anchors: of all heads' (m, D), or PER_HEAD of (heads, m, D)."""
    if PER_HEAD:
        place = pointer + (head % heads) * m * D
    else:
        place = pointer
    return place


@triton.jit
def load_tokens(
    pointer, start, n, strides,
    BLOCK: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr, EVICT: tl.constexpr = PLAIN,
):  # fmt: skip
    """(BLOCK, D_PAD) of a head: tokens from `start`, zero beyond n and beyond D. EVEN: n is a multiple of BLOCK."""
    rows = tl.arange(0, BLOCK)
    columns = tl.arange(0, D_PAD)
    places = pointer + tl.cast(start, tl.int64) * strides[2] + (rows[:, None] * strides[2] + columns[None, :])
    if EVEN:
        if D == D_PAD:
            tile = tl.load(places, eviction_policy=EVICT)
        else:
            tile = tl.load(places, mask=(columns < D)[None, :], other=0.0, eviction_policy=EVICT)
    else:
        mask = (start + rows < n)[:, None] & (columns < D)[None, :]
        tile = tl.load(places, mask=mask, other=0.0, eviction_policy=EVICT)
    return tile


@triton.jit
def store_tokens(
    pointer, tile, start, n, strides,
    BLOCK: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr, EVICT: tl.constexpr = PLAIN,
):  # fmt: skip
    """Write (BLOCK, D_PAD) to a head at tokens from `start`, leaving out what lies beyond n or D."""
    rows = tl.arange(0, BLOCK)
    columns = tl.arange(0, D_PAD)
    places = pointer + tl.cast(start, tl.int64) * strides[2] + (rows[:, None] * strides[2] + columns[None, :])
    values = tile.to(pointer.dtype.element_ty)
    if EVEN:
        if D == D_PAD:
            tl.store(places, values, eviction_policy=EVICT)
        else:
            tl.store(places, values, mask=(columns < D)[None, :], eviction_policy=EVICT)
    else:
        mask = (start + rows < n)[:, None] & (columns < D)[None, :]
        tl.store(places, values, mask=mask, eviction_policy=EVICT)


@triton.jit
def load_matrix(pointer, first, m, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr):
    """(BLOCK_M, D_PAD) of a compact (m, D) matrix from row `first`, zero outside."""
    rows = first + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, D_PAD)
    mask = (rows < m)[:, None] & (columns < D)[None, :]
    return tl.load(pointer + rows[:, None] * D + columns[None, :], mask=mask, other=0.0)


@triton.jit
def store_matrix(pointer, tile, first, m, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr):
    """Write a (BLOCK_M, D_PAD) tile to a compact (m, D) matrix from row `first`."""
    rows = first + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, D_PAD)
    mask = (rows < m)[:, None] & (columns < D)[None, :]
    tl.store(pointer + rows[:, None] * D + columns[None, :], tile, mask=mask)


@triton.jit
def load_vector(pointer, start, n, BLOCK: tl.constexpr, other):
    """BLOCK floats from place `start`, `other` beyond n."""
    rows = start + tl.arange(0, BLOCK)
    return tl.load(pointer + rows, mask=rows < n, other=other)

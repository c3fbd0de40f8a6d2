"""Anchor attention on the GPU: the Triton code. kernels.anchor holds the operators, kernels.anchor_plan the launches.

    A = softmax_j(k_i · u_j / √d)    M = Aᵀ V    δ = Aᵀ 1    W = Δ⁻¹ M    O = A W

Forward. *Gather* streams K and V once per head, split over tokens, and keeps U, the (m, d) sum of AᵀV and the m degrees
on chip. *Reduce* adds the splits in a fixed order and divides by the degree. *Scatter* reads K again, forms A again and
writes O. Nothing of size n × m exists.

Backward, from G = ∂L/∂O, with A formed again instead of stored:

    dW = Aᵀ G                       the gather kernel, with G for V
    dM = Δ⁻¹ dW                     W = Δ⁻¹ M
    dδ_j = −(1/δ_j) Σ_c dW_jc W_jc  ∂W_j/∂δ_j = −M_j/δ_j² = −W_j/δ_j
    dA = G Wᵀ + V dMᵀ + 1 dδᵀ       A occurs in O = A W, in M = AᵀV and in δ = Aᵀ1
    dV = A dM
    dS = A ∘ (dA − (A ∘ dA) 1 1ᵀ)   softmax, token by token
    dK = dS U / √d,  dU = Σ_i dSᵀ K / √d

Two ways through the anchors:
- *whole*: all anchors of a token are in one tile, so that its softmax is finished inside it;
- *blocked*: m × d does not fit on chip. `denominator_kernel` computes each token's log-sum-exp first (n floats a head),
  after which a block of anchors can be treated without the others.

Conventions: token tensors have any batch, head and token strides and a contiguous last dimension; a tile's base is
formed in 64 bits, offsets inside it in 32. The stride between tokens, and m where all anchors are in one tile, are
constants of the compiled kernel: offsets then are immediate, which saves a third of the registers. Matrices that a loop
multiplies with are transposed before it, so that they are put into shared memory once. d is padded to a power of two
and m to a block with anchors of logit −inf.
Logits, softmax, degrees and all sums are float32; A and dS are rounded to the inputs' dtype for the tensor cores.
"""

# ruff: noqa: SIM108 - Triton compiles an `if` on a constant to one branch; of `x if c else y` it must type both.

from __future__ import annotations

import triton
import triton.language as tl

# A degree below this counts as zero: its anchor's weight on any token is below it too, so the term it would add to any
# output or gradient vanishes in float32, while 1/δ would approach overflow.
SMALLEST_DEGREE = tl.constexpr(1e-30)

GATHER = tl.constexpr(0)
REDUCE = tl.constexpr(1)
SCATTER = tl.constexpr(2)


@triton.jit
def _head_offset(index, heads, stride_b, stride_h):
    """Elements from the start of a (b, h, ·, ·) tensor to its head `index` = batch · heads + head."""
    return (index // heads).to(tl.int64) * stride_b + (index % heads).to(tl.int64) * stride_h


@triton.jit
def _offsets(start, stride, BLOCK: tl.constexpr, D_PAD: tl.constexpr):
    """The tile's base in 64 bits and its offsets in 32."""
    rows = tl.arange(0, BLOCK)
    columns = tl.arange(0, D_PAD)
    return tl.cast(start, tl.int64) * stride, rows[:, None] * stride + columns[None, :]


@triton.jit
def _load(
    pointer, start, n, stride,
    BLOCK: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr, EVICT: tl.constexpr,
):  # fmt: skip
    """(BLOCK, D_PAD) of a head: tokens from `start`, zero beyond n and beyond D."""
    base, inside = _offsets(start, stride, BLOCK, D_PAD)
    rows = start + tl.arange(0, BLOCK)
    columns = tl.arange(0, D_PAD)
    if EVEN:
        if D == D_PAD:
            tile = tl.load(pointer + base + inside, eviction_policy=EVICT)
        else:
            tile = tl.load(pointer + base + inside, mask=(columns < D)[None, :], other=0.0, eviction_policy=EVICT)
    else:
        mask = (rows < n)[:, None] & (columns < D)[None, :]
        tile = tl.load(pointer + base + inside, mask=mask, other=0.0, eviction_policy=EVICT)
    return tile


@triton.jit
def _store(
    pointer, tile, start, n, stride,
    BLOCK: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr, EVICT: tl.constexpr,
):  # fmt: skip
    """Write (BLOCK, D_PAD) to a head at tokens from `start`, leaving out what lies beyond n or D."""
    base, inside = _offsets(start, stride, BLOCK, D_PAD)
    rows = start + tl.arange(0, BLOCK)
    columns = tl.arange(0, D_PAD)
    values = tile.to(pointer.dtype.element_ty)
    if EVEN:
        if D == D_PAD:
            tl.store(pointer + base + inside, values, eviction_policy=EVICT)
        else:
            tl.store(pointer + base + inside, values, mask=(columns < D)[None, :], eviction_policy=EVICT)
    else:
        mask = (rows < n)[:, None] & (columns < D)[None, :]
        tl.store(pointer + base + inside, values, mask=mask, eviction_policy=EVICT)


@triton.jit
def _load_rows(pointer, first, m, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, CACHE: tl.constexpr):
    """(BLOCK_M, D_PAD) of a compact (m, D) matrix from row `first`, zero outside."""
    rows = first + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, D_PAD)
    mask = (rows < m)[:, None] & (columns < D)[None, :]
    return tl.load(pointer + rows[:, None] * D + columns[None, :], mask=mask, other=0.0, cache_modifier=CACHE)


@triton.jit
def _store_rows(pointer, tile, first, m, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr):
    """Write a (BLOCK_M, D_PAD) tile to a compact (m, D) matrix from row `first`."""
    rows = first + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, D_PAD)
    mask = (rows < m)[:, None] & (columns < D)[None, :]
    tl.store(pointer + rows[:, None] * D + columns[None, :], tile, mask=mask)


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr):
    """a · b in float32. "interpreted": operands widened first, as the interpreter multiplies bfloat16 as integers."""
    if PRECISION == "interpreted":
        product = tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:
        product = tl.dot(a, b, input_precision=PRECISION)
    return product


@triton.jit
def _add_dot(a, b, total, PRECISION: tl.constexpr):
    """total + a · b in float32."""
    if PRECISION == "interpreted":
        result = tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision="ieee")
    else:
        result = tl.dot(a, b, total, input_precision=PRECISION)
    return result


@triton.jit
def _logits(k, ut, first, m, PADDED: tl.constexpr, PRECISION: tl.constexpr):
    """k · u before scaling, (tokens, anchors) in float32; −inf for anchors beyond m."""
    s = _dot(k, ut, PRECISION)
    if PADDED:
        anchors = first + tl.arange(0, ut.shape[1])
        s = tl.where((anchors < m)[None, :], s, float("-inf"))
    return s


@triton.jit
def _softmax(s, scale, start, n, MASKED: tl.constexpr):
    """Softmax over a whole row of raw logits; scale = log2(e)/√d. MASKED: zero for tokens beyond n.

    2^(s·scale − top·scale) is one fused multiply-add an element: the rounding of top·scale is common to the row and
    cancels in the division.
    """
    top = tl.max(s, 1) * scale
    p = tl.exp2(s * scale - top[:, None])
    inverse = 1.0 / tl.sum(p, 1)
    if MASKED:
        inverse = tl.where(start + tl.arange(0, s.shape[0]) < n, inverse, 0.0)
    return p * inverse[:, None]


@triton.jit
def _load_vector(pointer, start, n, BLOCK: tl.constexpr, other):
    """BLOCK floats of a head from token `start`, `other` beyond n."""
    rows = start + tl.arange(0, BLOCK)
    return tl.load(pointer + rows, mask=rows < n, other=other)


@triton.jit
def _gather(
    k, v, lse, ut, low, high, n, stride_k, stride_v, scale, first, m,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, BLOCKED: tl.constexpr, DEGREE: tl.constexpr, PRECISION: tl.constexpr,
    WGMMA: tl.constexpr, KEEP: tl.constexpr, KEEP_V: tl.constexpr,
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
        tile_k = _load(k, start, n, stride_k, BLOCK_N, D, D_PAD, EVEN, KEEP)
        tile_v = _load(v, start, n, stride_v, BLOCK_N, D, D_PAD, EVEN, KEEP_V)
        s = _logits(tile_k, ut, first, m, PADDED, PRECISION)
        # A is zero for tokens beyond n, which are to have no part in the degrees.
        if BLOCKED:
            a = tl.exp2(s * scale - _load_vector(lse, start, n, BLOCK_N, float("inf"))[:, None])
        else:
            a = _softmax(s, scale, start, n, not EVEN)
        narrow = a.to(tile_v.dtype)
        if FLIPPED:
            total = _add_dot(tl.trans(tile_v), narrow, total, PRECISION)
        else:
            total = _add_dot(tl.trans(narrow), tile_v, total, PRECISION)
        if DEGREE:
            if not NARROW:
                degree += tl.sum(a, 0)
            elif WGMMA:
                degree = _add_dot(ones, narrow, degree, PRECISION)
            else:
                degree = _add_dot(tl.trans(narrow), ones, degree, PRECISION)
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
def _scatter(
    k, out, ut, w, low, high, n, stride_k, stride_o, scale, m,
    BLOCK_N: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr, PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """O = A W for the tokens [low, high)."""
    for start in range(low, high, BLOCK_N):
        tile_k = _load(k, start, n, stride_k, BLOCK_N, D, D_PAD, EVEN, "evict_first")
        a = _softmax(_logits(tile_k, ut, 0, m, PADDED, PRECISION), scale, start, n, False)
        o = _dot(a.to(tile_k.dtype), w, PRECISION)
        _store(out, o, start, n, stride_o, BLOCK_N, D, D_PAD, EVEN, "evict_first")


@triton.jit
def _means(total, degree):
    """W = Δ⁻¹ M; zero where the degree is."""
    alive = degree > SMALLEST_DEGREE
    return tl.where(alive[:, None], total / tl.where(alive, degree, 1.0)[:, None], 0.0)


@triton.jit
def _mean_gradients(total, means, degree):
    """dM = Δ⁻¹ dW and dδ = −Δ⁻¹ Σ_c dW ∘ W; zero where the degree is."""
    alive = degree > SMALLEST_DEGREE
    inverse = tl.where(alive, 1.0 / tl.where(alive, degree, 1.0), 0.0)
    return total * inverse[:, None], -inverse * tl.sum(total * means, 1)


@triton.jit
def _sum_splits(
    partial, partial_degree, head, splits, m,
    BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, DEGREE: tl.constexpr, CACHE: tl.constexpr,
):  # fmt: skip
    """Sum of a head's partial (m, d) matrices and degrees, split after split: few splits, all rows at once."""
    rows = tl.arange(0, BLOCK_M)
    total = tl.zeros((BLOCK_M, D_PAD), dtype=tl.float32)
    degree = tl.zeros((BLOCK_M,), dtype=tl.float32)
    at = head.to(tl.int64) * splits
    for split in range(0, splits, 2):  # two at a time, so that their loads are in flight together
        also = tl.where(split + 1 < splits, m, 0)
        here, there = (at + split) * m, (at + split + 1) * m
        one = _load_rows(partial + here * D, 0, m, BLOCK_M, D, D_PAD, CACHE)
        two = _load_rows(partial + there * D, 0, also, BLOCK_M, D, D_PAD, CACHE)
        total = total + one + two
        if DEGREE:
            one_degree = tl.load(partial_degree + here + rows, mask=rows < m, other=0.0, cache_modifier=CACHE)
            two_degree = tl.load(partial_degree + there + rows, mask=rows < also, other=0.0, cache_modifier=CACHE)
            degree = degree + one_degree + two_degree
    return total, degree


@triton.jit
def _sum_slice(
    partial, partial_degree, place, splits, first, m,
    ROWS: tl.constexpr, WIDE: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, DEGREE: tl.constexpr,
):  # fmt: skip
    """The same for ROWS anchors from `first`, WIDE splits at a time: many splits, so that many loads are in flight.

    Lane l adds the splits l, l + WIDE, … in order, then the lanes are added in a tree: the order depends on nothing
    but the number of splits. Reads through L2 (.cg), since other programs of the same launch may have written.
    """
    lane = tl.arange(0, WIDE)
    rows = first + tl.arange(0, ROWS)
    columns = tl.arange(0, D_PAD)
    inside = (lane * m * D)[:, None, None] + (rows[:, None] * D + columns[None, :])[None, :, :]
    mask = ((rows < m)[:, None] & (columns < D)[None, :])[None, :, :]
    inside_degree = (lane * m)[:, None] + rows[None, :]
    total = tl.zeros((WIDE, ROWS, D_PAD), dtype=tl.float32)
    degree = tl.zeros((WIDE, ROWS), dtype=tl.float32)
    base = partial + place * splits * m * D
    base_degree = partial_degree + place * splits * m
    for start in range(0, splits, WIDE):
        there = lane < splits - start
        total += tl.load(base + inside, mask=there[:, None, None] & mask, other=0.0, cache_modifier=".cg")
        base += tl.cast(m, tl.int64) * D * WIDE
        if DEGREE:
            degree += tl.load(
                base_degree + inside_degree, mask=there[:, None] & (rows < m)[None, :], other=0.0, cache_modifier=".cg"
            )
            base_degree += m * WIDE
    return tl.sum(total, 0), tl.sum(degree, 0)


@triton.jit
def _reduce_means(
    partial, partial_degree, means, degree, place, head, splits, first, m,
    ROWS: tl.constexpr, WIDE: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
):  # fmt: skip
    """W and δ of a head for ROWS anchors from `first`; place: where its splits are in `partial`, in 64 bits."""
    total, counted = _sum_slice(partial, partial_degree, place, splits, first, m, ROWS, WIDE, D, D_PAD, True)
    rows = first + tl.arange(0, ROWS)
    at = head.to(tl.int64) * m
    _store_rows(means + at * D, _means(total, counted), first, m, ROWS, D, D_PAD)
    tl.store(degree + at + rows, counted, mask=rows < m)


@triton.jit
def _reduce_gradients(
    partial, means, degree, grad_sums, grad_degree, place, head, splits, first, m,
    ROWS: tl.constexpr, WIDE: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
):  # fmt: skip
    """dM and dδ of a head for ROWS anchors from `first`."""
    total, _ = _sum_slice(partial, partial, place, splits, first, m, ROWS, WIDE, D, D_PAD, False)
    rows = first + tl.arange(0, ROWS)
    at = head.to(tl.int64) * m
    w = _load_rows(means + at * D, first, m, ROWS, D, D_PAD, "")
    d = tl.load(degree + at + rows, mask=rows < m, other=0.0)
    grad_sum, grad_d = _mean_gradients(total, w, d)
    _store_rows(grad_sums + at * D, grad_sum, first, m, ROWS, D, D_PAD)
    tl.store(grad_degree + at + rows, grad_d, mask=rows < m)


@triton.jit
def _weight_gradients(tile_v, tile_g, wt, dmt, dd, PRECISION: tl.constexpr):
    """dA of a tile of tokens and a block of anchors; wt, dmt: transposed."""
    da = _dot(tile_g, wt, PRECISION)
    return _add_dot(tile_v, dmt, da, PRECISION) + dd[None, :]


@triton.jit
def _differentiate(
    k, v, g, grad_k, grad_v, u, ut, w, dm, dd, low, high, n,
    stride_k, stride_v, stride_g, stride_dk, stride_dv, scale, root, m,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, WGMMA: tl.constexpr,
):  # fmt: skip
    """dK and dV of the tokens [low, high), and their share of dU; root = 1/√d, ut and WGMMA as in `_gather`.

    dV is formed after dS although A was there before: kept, it would take registers through the widest part.
    """
    FLIPPED: tl.constexpr = k.dtype.element_ty != tl.float32 and WGMMA and D_PAD >= 64
    wt, dmt = tl.trans(w), tl.trans(dm)
    if FLIPPED:
        du = tl.zeros((D_PAD, BLOCK_M), dtype=tl.float32)
    else:
        du = tl.zeros((BLOCK_M, D_PAD), dtype=tl.float32)
    for start in range(low, high, BLOCK_N):
        tile_k = _load(k, start, n, stride_k, BLOCK_N, D, D_PAD, EVEN, "evict_first")
        tile_v = _load(v, start, n, stride_v, BLOCK_N, D, D_PAD, EVEN, "evict_first")
        tile_g = _load(g, start, n, stride_g, BLOCK_N, D, D_PAD, EVEN, "evict_first")
        a = _softmax(_logits(tile_k, ut, 0, m, PADDED, PRECISION), scale, start, n, False)
        narrow = a.to(tile_k.dtype)
        da = _weight_gradients(tile_v, tile_g, wt, dmt, dd, PRECISION)
        # 1/√d is applied to dK and dU, not here: in float16 dS is small enough already. Tokens beyond n add nothing
        # to dU, because their rows of K are zero.
        ds = (a * (da - tl.sum(a * da, 1)[:, None])).to(tile_k.dtype)
        if FLIPPED:
            du = _add_dot(tl.trans(tile_k), ds, du, PRECISION)
        else:
            du = _add_dot(tl.trans(ds), tile_k, du, PRECISION)
        dv = _dot(narrow, dm, PRECISION)
        dk = _dot(ds, u, PRECISION) * root
        _store(grad_v, dv, start, n, stride_dv, BLOCK_N, D, D_PAD, EVEN, "evict_first")
        _store(grad_k, dk, start, n, stride_dk, BLOCK_N, D, D_PAD, EVEN, "evict_first")
    if FLIPPED:
        du = tl.trans(du)
    return du * root


# Launches, one operation each.


@triton.jit
def gather_kernel(
    k, v, anchors, lse, partial, partial_degree, scale, n, m: tl.constexpr, heads, splits, span,
    stride_kb, stride_kh, stride_kn: tl.constexpr, stride_vb, stride_vh, stride_vn: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, BLOCKED: tl.constexpr, DEGREE: tl.constexpr, PRECISION: tl.constexpr, WGMMA: tl.constexpr,
):  # fmt: skip
    """Partial AᵀV and Aᵀ1 of one (head, split, block of anchors); a split is `span` tokens."""
    blocks = tl.cdiv(m, BLOCK_M)
    first = (tl.program_id(0) % blocks) * BLOCK_M  # neighbours share K and V through L2
    part = tl.program_id(0) // blocks
    head = part // splits
    low = (part % splits) * span
    u = _load_rows(anchors, first, m, BLOCK_M, D, D_PAD, "").to(k.dtype.element_ty)
    total, degree = _gather(
        k + _head_offset(head, heads, stride_kb, stride_kh), v + _head_offset(head, heads, stride_vb, stride_vh),
        lse + head.to(tl.int64) * n, tl.trans(u), low, tl.minimum(low + span, n), n, stride_kn, stride_vn, scale,
        first, m,
        BLOCK_N, BLOCK_M, D, D_PAD, EVEN, PADDED, BLOCKED, DEGREE, PRECISION, WGMMA, "", "",
    )  # fmt: skip
    at = part.to(tl.int64) * m
    _store_rows(partial + at * D, total, first, m, BLOCK_M, D, D_PAD)
    if DEGREE:
        rows = first + tl.arange(0, BLOCK_M)
        tl.store(partial_degree + at + rows, degree, mask=rows < m)


@triton.jit
def means_kernel(
    partial, partial_degree, means, degree, splits, m: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
):  # fmt: skip
    """W and δ from the splits, one program for ROWS anchors of a head."""
    slices = tl.cdiv(m, ROWS)
    head = tl.program_id(0) // slices
    first = (tl.program_id(0) % slices) * ROWS
    _reduce_means(
        partial, partial_degree, means, degree, head.to(tl.int64), head, splits, first, m, ROWS, WIDE, D, D_PAD
    )


@triton.jit
def mean_gradients_kernel(
    partial, means, degree, grad_sums, grad_degree, splits, m: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
):  # fmt: skip
    """dM and dδ from the splits, one program for ROWS anchors of a head."""
    slices = tl.cdiv(m, ROWS)
    head = tl.program_id(0) // slices
    first = (tl.program_id(0) % slices) * ROWS
    _reduce_gradients(
        partial, means, degree, grad_sums, grad_degree, head.to(tl.int64), head, splits, first, m, ROWS, WIDE, D, D_PAD
    )


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
def scatter_kernel(
    k, anchors, partial, partial_degree, means, degree, out, scale, n, m: tl.constexpr, heads, parts, splits, chunks,
    span,
    stride_kb, stride_kh, stride_kn: tl.constexpr, stride_ob, stride_oh, stride_on: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, REDUCED: tl.constexpr,
):  # fmt: skip
    """O of one (head, chunk of `span` tokens); parts = b·h. Not REDUCED: adds the few splits of the gather itself.

    Heads run backwards: those that the gather read last are the ones whose K is still in L2.
    """
    head = parts - 1 - tl.program_id(0) // chunks
    chunk = tl.program_id(0) % chunks
    at = head.to(tl.int64) * m
    u = _load_rows(anchors, 0, m, BLOCK_M, D, D_PAD, "").to(k.dtype.element_ty)
    if REDUCED:
        w = _load_rows(means + at * D, 0, m, BLOCK_M, D, D_PAD, "")
    else:
        total, counted = _sum_splits(partial, partial_degree, head, splits, m, BLOCK_M, D, D_PAD, True, "")
        w = _means(total, counted)
        if chunk == 0:
            rows = tl.arange(0, BLOCK_M)
            _store_rows(means + at * D, w, 0, m, BLOCK_M, D, D_PAD)
            tl.store(degree + at + rows, counted, mask=rows < m)
    low = chunk * span
    _scatter(
        k + _head_offset(head, heads, stride_kb, stride_kh), out + _head_offset(head, heads, stride_ob, stride_oh),
        tl.trans(u), w.to(k.dtype.element_ty), low, tl.minimum(low + span, n), n, stride_kn, stride_on, scale, m,
        BLOCK_N, D, D_PAD, EVEN, PADDED, PRECISION,
    )  # fmt: skip


@triton.jit
def backward_kernel(
    k, v, g, anchors, means, degree, partial, grad_sums, grad_degree, grad_k, grad_v, grad_partial,
    scale, root, n, m: tl.constexpr, heads, splits, chunks, span,
    stride_kb, stride_kh, stride_kn: tl.constexpr, stride_vb, stride_vh, stride_vn: tl.constexpr,
    stride_gb, stride_gh, stride_gn: tl.constexpr,
    stride_dkb, stride_dkh, stride_dkn: tl.constexpr, stride_dvb, stride_dvh, stride_dvn: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, REDUCED: tl.constexpr, WGMMA: tl.constexpr,
):  # fmt: skip
    """dK, dV and a partial dU of one (head, chunk of `span` tokens)."""
    part = tl.program_id(0)
    head = part // chunks
    chunk = part % chunks
    at = head.to(tl.int64) * m
    rows = tl.arange(0, BLOCK_M)
    u = _load_rows(anchors, 0, m, BLOCK_M, D, D_PAD, "").to(k.dtype.element_ty)
    w = _load_rows(means + at * D, 0, m, BLOCK_M, D, D_PAD, "")
    if REDUCED:
        dm = _load_rows(grad_sums + at * D, 0, m, BLOCK_M, D, D_PAD, "")
        dd = tl.load(grad_degree + at + rows, mask=rows < m, other=0.0)
    else:
        total, _ = _sum_splits(partial, partial, head, splits, m, BLOCK_M, D, D_PAD, False, "")
        dm, dd = _mean_gradients(total, w, tl.load(degree + at + rows, mask=rows < m, other=0.0))
    low = chunk * span
    du = _differentiate(
        k + _head_offset(head, heads, stride_kb, stride_kh), v + _head_offset(head, heads, stride_vb, stride_vh),
        g + _head_offset(head, heads, stride_gb, stride_gh), grad_k + _head_offset(head, heads, stride_dkb, stride_dkh),
        grad_v + _head_offset(head, heads, stride_dvb, stride_dvh), u, tl.trans(u), w.to(k.dtype.element_ty),
        dm.to(k.dtype.element_ty), dd, low, tl.minimum(low + span, n), n,
        stride_kn, stride_vn, stride_gn, stride_dkn, stride_dvn, scale, root, m,
        BLOCK_N, BLOCK_M, D, D_PAD, EVEN, PADDED, PRECISION, WGMMA,
    )  # fmt: skip
    _store_rows(grad_partial + part.to(tl.int64) * m * D, du, 0, m, BLOCK_M, D, D_PAD)


# Blocked: m × d is too large for one tile.


@triton.jit
def denominator_kernel(
    k, anchors, lse, scale, n, m, heads, stride_kb, stride_kh, stride_kn: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Each token's log2 Σ_j 2^(logit·scale), (b·h, n) float32, anchors block after block with a running maximum."""
    tiles = tl.cdiv(n, BLOCK_N)
    head = tl.program_id(0) // tiles
    start = (tl.program_id(0) % tiles) * BLOCK_N
    tile_k = _load(
        k + _head_offset(head, heads, stride_kb, stride_kh), start, n, stride_kn, BLOCK_N, D, D_PAD, EVEN, ""
    )
    top = tl.full((BLOCK_N,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_N,), dtype=tl.float32)
    for first in range(0, m, BLOCK_M):
        u = _load_rows(anchors, first, m, BLOCK_M, D, D_PAD, "").to(k.dtype.element_ty)
        s = _logits(tile_k, tl.trans(u), first, m, PADDED, PRECISION) * scale
        higher = tl.maximum(top, tl.max(s, 1))  # finite: every block holds at least one anchor
        total = total * tl.exp2(top - higher) + tl.sum(tl.exp2(s - higher[:, None]), 1)
        top = higher
    rows = start + tl.arange(0, BLOCK_N)
    tl.store(lse + head.to(tl.int64) * n + rows, top + tl.log2(total), mask=rows < n)


@triton.jit
def scatter_blocked_kernel(
    k, anchors, means, lse, out, scale, n, m, heads, stride_kb, stride_kh, stride_kn: tl.constexpr,
    stride_ob, stride_oh, stride_on: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """O of one tile of tokens, summed over blocks of anchors."""
    tiles = tl.cdiv(n, BLOCK_N)
    head = tl.program_id(0) // tiles
    start = (tl.program_id(0) % tiles) * BLOCK_N
    at = head.to(tl.int64) * m
    tile_k = _load(
        k + _head_offset(head, heads, stride_kb, stride_kh), start, n, stride_kn, BLOCK_N, D, D_PAD, EVEN, ""
    )
    denominator = _load_vector(lse + head.to(tl.int64) * n, start, n, BLOCK_N, 0.0)
    o = tl.zeros((BLOCK_N, D_PAD), dtype=tl.float32)
    for first in range(0, m, BLOCK_M):
        u = _load_rows(anchors, first, m, BLOCK_M, D, D_PAD, "").to(k.dtype.element_ty)
        w = _load_rows(means + at * D, first, m, BLOCK_M, D, D_PAD, "").to(k.dtype.element_ty)
        s = _logits(tile_k, tl.trans(u), first, m, PADDED, PRECISION)
        a = tl.exp2(s * scale - denominator[:, None])
        o = _add_dot(a.to(tile_k.dtype), w, o, PRECISION)
    _store(
        out + _head_offset(head, heads, stride_ob, stride_oh),
        o,
        start,
        n,
        stride_on,
        BLOCK_N,
        D,
        D_PAD,
        EVEN,
        "evict_first",
    )


@triton.jit
def backward_tokens_kernel(
    k, v, g, anchors, means, grad_sums, grad_degree, lse, balance, grad_k, grad_v, scale, root, n, m, heads,
    stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_gb, stride_gh, stride_gn,
    stride_dkb, stride_dkh, stride_dkn, stride_dvb, stride_dvh, stride_dvn,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dK and dV of one tile of tokens. Writes balance_i = Σ_j A_ij dA_ij, (b·h, n), which dU needs too.

    The balance is summed as it stands, not as G·O + V·dV + A dδ: with O rounded to 16 bits the rows of dS would not
    sum to zero, and O would have to be kept for backward.
    """
    tiles = tl.cdiv(n, BLOCK_N)
    head = tl.program_id(0) // tiles
    start = (tl.program_id(0) % tiles) * BLOCK_N
    at = head.to(tl.int64) * m
    dtype = k.dtype.element_ty
    tile_k = _load(
        k + _head_offset(head, heads, stride_kb, stride_kh), start, n, stride_kn, BLOCK_N, D, D_PAD, EVEN, ""
    )
    tile_v = _load(
        v + _head_offset(head, heads, stride_vb, stride_vh), start, n, stride_vn, BLOCK_N, D, D_PAD, EVEN, ""
    )
    tile_g = _load(
        g + _head_offset(head, heads, stride_gb, stride_gh), start, n, stride_gn, BLOCK_N, D, D_PAD, EVEN, ""
    )
    denominator = _load_vector(lse + head.to(tl.int64) * n, start, n, BLOCK_N, 0.0)
    r = tl.zeros((BLOCK_N,), dtype=tl.float32)
    dv = tl.zeros((BLOCK_N, D_PAD), dtype=tl.float32)
    for first in range(0, m, BLOCK_M):
        rows = first + tl.arange(0, BLOCK_M)
        u = _load_rows(anchors, first, m, BLOCK_M, D, D_PAD, "").to(dtype)
        w = _load_rows(means + at * D, first, m, BLOCK_M, D, D_PAD, "").to(dtype)
        dm = _load_rows(grad_sums + at * D, first, m, BLOCK_M, D, D_PAD, "").to(dtype)
        dd = tl.load(grad_degree + at + rows, mask=rows < m, other=0.0)
        a = tl.exp2(_logits(tile_k, tl.trans(u), first, m, PADDED, PRECISION) * scale - denominator[:, None])
        r += tl.sum(a * _weight_gradients(tile_v, tile_g, tl.trans(w), tl.trans(dm), dd, PRECISION), 1)
        dv = _add_dot(a.to(dtype), dm, dv, PRECISION)
    _store(
        grad_v + _head_offset(head, heads, stride_dvb, stride_dvh),
        dv,
        start,
        n,
        stride_dvn,
        BLOCK_N,
        D,
        D_PAD,
        EVEN,
        "",
    )
    tokens = start + tl.arange(0, BLOCK_N)
    tl.store(balance + head.to(tl.int64) * n + tokens, r, mask=tokens < n)
    dk = tl.zeros((BLOCK_N, D_PAD), dtype=tl.float32)
    for first in range(0, m, BLOCK_M):
        rows = first + tl.arange(0, BLOCK_M)
        u = _load_rows(anchors, first, m, BLOCK_M, D, D_PAD, "").to(dtype)
        w = _load_rows(means + at * D, first, m, BLOCK_M, D, D_PAD, "").to(dtype)
        dm = _load_rows(grad_sums + at * D, first, m, BLOCK_M, D, D_PAD, "").to(dtype)
        dd = tl.load(grad_degree + at + rows, mask=rows < m, other=0.0)
        a = tl.exp2(_logits(tile_k, tl.trans(u), first, m, PADDED, PRECISION) * scale - denominator[:, None])
        da = _weight_gradients(tile_v, tile_g, tl.trans(w), tl.trans(dm), dd, PRECISION)
        dk = _add_dot((a * (da - r[:, None])).to(dtype), u, dk, PRECISION)
    _store(
        grad_k + _head_offset(head, heads, stride_dkb, stride_dkh), dk * root, start, n, stride_dkn,
        BLOCK_N, D, D_PAD, EVEN, "",
    )  # fmt: skip


@triton.jit
def backward_anchors_kernel(
    k, v, g, anchors, means, grad_sums, grad_degree, lse, balance, grad_partial, scale, root, n, m,
    heads, splits, span,
    stride_kb, stride_kh, stride_kn: tl.constexpr, stride_vb, stride_vh, stride_vn: tl.constexpr,
    stride_gb, stride_gh, stride_gn: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A partial dU of one (head, split, block of anchors)."""
    blocks = tl.cdiv(m, BLOCK_M)
    first = (tl.program_id(0) % blocks) * BLOCK_M
    part = tl.program_id(0) // blocks
    head = part // splits
    low = (part % splits) * span
    at = head.to(tl.int64) * m
    dtype = k.dtype.element_ty
    rows = first + tl.arange(0, BLOCK_M)
    u = _load_rows(anchors, first, m, BLOCK_M, D, D_PAD, "").to(dtype)
    w = _load_rows(means + at * D, first, m, BLOCK_M, D, D_PAD, "").to(dtype)
    dm = _load_rows(grad_sums + at * D, first, m, BLOCK_M, D, D_PAD, "").to(dtype)
    dd = tl.load(grad_degree + at + rows, mask=rows < m, other=0.0)
    head_k = k + _head_offset(head, heads, stride_kb, stride_kh)
    head_v = v + _head_offset(head, heads, stride_vb, stride_vh)
    head_g = g + _head_offset(head, heads, stride_gb, stride_gh)
    head_lse = lse + head.to(tl.int64) * n
    head_balance = balance + head.to(tl.int64) * n
    ut, wt, dmt = tl.trans(u), tl.trans(w), tl.trans(dm)
    du = tl.zeros((BLOCK_M, D_PAD), dtype=tl.float32)
    for start in range(low, tl.minimum(low + span, n), BLOCK_N):
        tile_k = _load(head_k, start, n, stride_kn, BLOCK_N, D, D_PAD, EVEN, "")
        tile_v = _load(head_v, start, n, stride_vn, BLOCK_N, D, D_PAD, EVEN, "")
        tile_g = _load(head_g, start, n, stride_gn, BLOCK_N, D, D_PAD, EVEN, "")
        s = _logits(tile_k, ut, first, m, PADDED, PRECISION)
        a = tl.exp2(s * scale - _load_vector(head_lse, start, n, BLOCK_N, 0.0)[:, None])
        da = _weight_gradients(tile_v, tile_g, wt, dmt, dd, PRECISION)
        ds = a * (da - _load_vector(head_balance, start, n, BLOCK_N, 0.0)[:, None])
        du = _add_dot(tl.trans(ds.to(dtype)), tile_k, du, PRECISION)
    _store_rows(grad_partial + part.to(tl.int64) * m * D, du * root, first, m, BLOCK_M, D, D_PAD)


# Persistent: one launch; the second reading of K (and of G) finds it in L2.
#
# Heads go through in groups small enough for L2. Work is cut into items, numbered in an order in which an item waits
# only for items of lower number; programs take numbers from a counter ("tickets") until there are none. In step t:
#
#     first half of group t's gather items · group t−1's reduce items · rest of group t's gather · group t−1's scatter
#
# Why this cannot hang: take the unfinished item of lowest number that anyone holds. All it waits for has lower numbers;
# those tickets were given out before, each to a program that was running when it took it and that works on nothing
# else until it is done; so they are finished or can finish, and so can this one. It needs no co-residency (a program
# that is not resident holds no ticket), unlike a grid barrier; the grid is still kept to what is co-resident, because
# more programs would only queue. Run one after the other, as under the interpreter, the first program does all items
# in order and never waits.
#
# Why the data is there: a writer stores, then `debug_barrier` orders the stores of all its threads before the one
# thread that performs the atomic with release semantics at GPU scope; a reader's one thread sees the count with
# acquire semantics, and the broadcast of the atomic's result through shared memory is a barrier for its other threads.
# What crosses programs is read through L2 (.cg), never from an L1 line that was there before.
#
# What stays small: partial sums live in a ring of two groups, so that they never leave L2; a gather item waits until
# the group that had its place has been reduced (those items come a step earlier). Likewise item i of every group adds
# its dU to place i, after item i of the group before has.
#
# Why it repeats bit for bit: who executes an item, and when, changes nothing in it; sums over splits have one order.


@triton.jit
def _arrive(counter):
    """Make this program's stores visible and count one finished item."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release", scope="gpu")


@triton.jit
def _await(counter, target):
    """Wait until `target` items have arrived."""
    while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < target:
        pass


@triton.jit
def _item(ticket, group, splits, slices):
    """A ticket's work: (kind, head, part), the head possibly outside [0, b·h) — then there is nothing to do."""
    gathers = group * splits
    period = 2 * gathers + group * slices
    step = ticket // period
    i = ticket % period
    half = gathers // 2
    between = group * slices
    kind = tl.where(
        (i >= half) & (i < half + between), REDUCE.value, tl.where(i >= gathers + between, SCATTER.value, GATHER.value)
    )
    index = tl.where(kind == REDUCE, i - half, tl.where(kind == SCATTER, i - gathers - between, i))
    index = tl.where((kind == GATHER) & (i >= half), i - between, index)
    parts = tl.where(kind == REDUCE, slices, splits)
    base = tl.where(kind == GATHER, step, step - 1) * group
    return kind, base + index // parts, index % parts


@triton.jit
def persistent_forward_kernel(
    k, v, anchors, partial, partial_degree, means, degree, out, counters, scale, n, m: tl.constexpr, heads, parts,
    group, splits, slices, span, tickets,
    stride_kb, stride_kh, stride_kn: tl.constexpr, stride_vb, stride_vh, stride_vn: tl.constexpr,
    stride_ob, stride_oh, stride_on: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr, WGMMA: tl.constexpr,
):  # fmt: skip
    """The whole forward pass. parts = b·h; slices · ROWS ≥ m; counters: 1 + 2·parts zeros; partial: 2·group·splits."""
    ut = tl.trans(_load_rows(anchors, 0, m, BLOCK_M, D, D_PAD, "").to(k.dtype.element_ty))
    rows = tl.arange(0, BLOCK_M)
    ticket = tl.atomic_add(counters, 1, sem="relaxed", scope="gpu")
    while ticket < tickets:
        kind, head, part = _item(ticket, group, splits, slices)
        if (head >= 0) & (head < parts):
            gathered = counters + 1 + head
            reduced = counters + 1 + parts + head
            place = (head % (2 * group)).to(tl.int64)
            head_k = k + _head_offset(head, heads, stride_kb, stride_kh)
            low = part * span
            high = tl.minimum(low + span, n)
            if kind == GATHER:
                if head >= 2 * group:
                    _await(reduced - 2 * group, slices)
                total, counted = _gather(
                    head_k, v + _head_offset(head, heads, stride_vb, stride_vh), k, ut, low, high, n,
                    stride_kn, stride_vn, scale, 0, m,
                    BLOCK_N, BLOCK_M, D, D_PAD, EVEN, PADDED, False, True, PRECISION, WGMMA, "evict_last",
                    "evict_first",
                )  # fmt: skip
                at = (place * splits + part) * m
                _store_rows(partial + at * D, total, 0, m, BLOCK_M, D, D_PAD)
                tl.store(partial_degree + at + rows, counted, mask=rows < m)
                _arrive(gathered)
            elif kind == REDUCE:
                _await(gathered, splits)
                _reduce_means(
                    partial, partial_degree, means, degree, place, head, splits, part * ROWS, m, ROWS, WIDE, D, D_PAD
                )
                _arrive(reduced)
            else:
                _await(reduced, slices)
                w = _load_rows(means + head.to(tl.int64) * m * D, 0, m, BLOCK_M, D, D_PAD, ".cg")
                _scatter(
                    head_k, out + _head_offset(head, heads, stride_ob, stride_oh), ut, w.to(k.dtype.element_ty),
                    low, high, n, stride_kn, stride_on, scale, m, BLOCK_N, D, D_PAD, EVEN, PADDED, PRECISION,
                )  # fmt: skip
        ticket = tl.atomic_add(counters, 1, sem="relaxed", scope="gpu")


@triton.jit
def persistent_backward_kernel(
    k, v, g, anchors, means, degree, partial, grad_sums, grad_degree, grad_k, grad_v, grad_partial, counters,
    scale, root, n, m: tl.constexpr, heads, parts, group, splits, slices, span, tickets,
    stride_kb, stride_kh, stride_kn: tl.constexpr, stride_vb, stride_vh, stride_vn: tl.constexpr,
    stride_gb, stride_gh, stride_gn: tl.constexpr,
    stride_dkb, stride_dkh, stride_dkn: tl.constexpr, stride_dvb, stride_dvh, stride_dvn: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr, WGMMA: tl.constexpr,
):  # fmt: skip
    """The backward pass up to the sum of the partial dU. counters: 1 + 2·parts + group·splits zeros; partial:
    2·group·splits, grad_partial: group·splits matrices."""
    dtype = k.dtype.element_ty
    u = _load_rows(anchors, 0, m, BLOCK_M, D, D_PAD, "").to(dtype)
    ut = tl.trans(u)
    rows = tl.arange(0, BLOCK_M)
    ticket = tl.atomic_add(counters, 1, sem="relaxed", scope="gpu")
    while ticket < tickets:
        kind, head, part = _item(ticket, group, splits, slices)
        if (head >= 0) & (head < parts):
            gathered = counters + 1 + head
            reduced = counters + 1 + parts + head
            place = (head % (2 * group)).to(tl.int64)
            head_k = k + _head_offset(head, heads, stride_kb, stride_kh)
            head_g = g + _head_offset(head, heads, stride_gb, stride_gh)
            low = part * span
            high = tl.minimum(low + span, n)
            if kind == GATHER:
                if head >= 2 * group:
                    _await(reduced - 2 * group, slices)
                total, _ = _gather(
                    head_k, head_g, k, ut, low, high, n, stride_kn, stride_gn, scale, 0, m,
                    BLOCK_N, BLOCK_M, D, D_PAD, EVEN, PADDED, False, False, PRECISION, WGMMA, "evict_last",
                    "evict_last",
                )  # fmt: skip
                _store_rows(partial + (place * splits + part) * m * D, total, 0, m, BLOCK_M, D, D_PAD)
                _arrive(gathered)
            elif kind == REDUCE:
                _await(gathered, splits)
                _reduce_gradients(
                    partial, means, degree, grad_sums, grad_degree, place, head, splits, part * ROWS, m,
                    ROWS, WIDE, D, D_PAD,
                )  # fmt: skip
                _arrive(reduced)
            else:
                _await(reduced, slices)
                head_m = head.to(tl.int64) * m
                w = _load_rows(means + head_m * D, 0, m, BLOCK_M, D, D_PAD, "")
                dm = _load_rows(grad_sums + head_m * D, 0, m, BLOCK_M, D, D_PAD, ".cg")
                dd = tl.load(grad_degree + head_m + rows, mask=rows < m, other=0.0, cache_modifier=".cg")
                du = _differentiate(
                    head_k, v + _head_offset(head, heads, stride_vb, stride_vh), head_g,
                    grad_k + _head_offset(head, heads, stride_dkb, stride_dkh),
                    grad_v + _head_offset(head, heads, stride_dvb, stride_dvh), u, ut, w.to(dtype), dm.to(dtype), dd,
                    low, high, n, stride_kn, stride_vn, stride_gn, stride_dkn, stride_dvn, scale, root, m,
                    BLOCK_N, BLOCK_M, D, D_PAD, EVEN, PADDED, PRECISION, WGMMA,
                )  # fmt: skip
                slot = (head % group) * splits + part
                added = counters + 1 + 2 * parts + slot
                at = slot.to(tl.int64) * m * D
                if head >= group:
                    _await(added, head // group)
                    du += _load_rows(grad_partial + at, 0, m, BLOCK_M, D, D_PAD, ".cg")
                _store_rows(grad_partial + at, du, 0, m, BLOCK_M, D, D_PAD)
                _arrive(added)
        ticket = tl.atomic_add(counters, 1, sem="relaxed", scope="gpu")

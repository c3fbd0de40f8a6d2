"""One launch, K read once: a program gathers its next tokens while the means of those before are still being added up.

A head's tokens are cut into items of TILES tiles; `programs`, a multiple of a head's SPLITS items, take item
program, program + programs, … in rounds. In step t, tile t % TILES of round t // TILES, a program

    1. gathers a tile: loads K and V, forms A, adds to AᵀV and Aᵀ1, puts A into a window of LAG tiles in registers;
    2. after REDUCE more tiles than an item has: adds ROWS anchors' sums of that item's head over its SPLITS;
    3. scatters the tile of LAG steps before, whose A leaves the window: O = A W;
    4. at an item's end writes its sums and says so.

So the sums of an item have REDUCE tiles' time to be seen by others, and their reduction the LAG − TILES − REDUCE after.

Why this cannot hang, if all programs run at once (a cooperative launch, which the driver refuses if they do not fit):
a head's items are of one round, since SPLITS divides `programs`. What a program waits for in round r + 1 are sums and
reductions of round r. A program writes the sums of round r having waited for nothing after round r − 1, whose waits are
of the round before; so by induction over rounds every wait ends.

Why SUMS places of partial sums a program are enough: a program overwrites its sums of round r at the end of round
r + SUMS, and in a step before it has waited until all of its head's sums of round r were reduced: one place does with
LAG < 2 TILES − 1. With LAG = 2 TILES − 1 both are of one step, where Triton's pipeliner puts 4., an `if` that only
stores, before the waits: two places. One round's sums are 16 KB a program, written again after 13 to 50 MB of other
traffic: they may stay in L2.

Why the data is there: stores, then a barrier, then one thread's atomic with release semantics at the GPU's scope; the
reader's one thread acquires, and its result passes a barrier to the others. What crosses programs is read from L2
(.cg). AᵀV is summed as split does it with as many splits; the degrees, of the rounded A too, in registers, tile after
tile by place and at an item's end over the places: a tile of ones for the tensor cores would take 32 registers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from attentions.kernels.anchor.algebra import add_dot, dot, logits, means_of, softmax
from attentions.kernels.anchor.memory import head_of, load_matrix, load_tokens, store_matrix, store_tokens
from attentions.kernels.anchor.sums import sum_slice

FEW_SPLITS = tl.constexpr(8)  # as plan.FEW_SPLITS: up to these, split adds one after the other


@triton.jit
def arrive(counter, INTERPRETED: tl.constexpr):
    """Make this program's stores visible and count one more that is done.

    The barrier is not tl.debug_barrier: with that in a loop Triton loads nothing ahead.
    """
    if not INTERPRETED:
        tl.inline_asm_elementwise(
            "bar.sync 0; mov.b32 $0, $1;", "=r,r", [tl.program_id(0)], dtype=tl.int32, is_pure=False, pack=1
        )  # fmt: skip
    tl.atomic_add(counter, 1, sem="release", scope="gpu")


@triton.jit
def wait_for(counter, target):
    """Wait until `target` have arrived."""
    while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < target:
        pass


@triton.jit
def sum_rows(
    partial, partial_degree, head, first, m,
    SPLITS: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
):  # fmt: skip
    """AᵀV and Aᵀ1 of ROWS anchors from `first`: sums over a head's splits, in the order in which split adds them."""
    if SPLITS <= FEW_SPLITS:
        rows = first + tl.arange(0, ROWS)
        columns = tl.arange(0, D_PAD)
        mask = (rows < m)[:, None] & (columns < D)[None, :]
        inside = rows[:, None] * D + columns[None, :]
        total = tl.zeros((ROWS, D_PAD), dtype=tl.float32)
        counted = tl.zeros((ROWS,), dtype=tl.float32)
        for split in tl.static_range(0, SPLITS):
            at = (head.to(tl.int64) * SPLITS + split) * m
            total += tl.load(partial + at * D + inside, mask=mask, other=0.0, cache_modifier=".cg")
            counted += tl.load(partial_degree + at + rows, mask=rows < m, other=0.0, cache_modifier=".cg")
    else:
        total, counted = sum_slice(
            partial, partial_degree, head, SPLITS, first, m, ROWS=ROWS, WIDE=8, D=D, D_PAD=D_PAD, DEGREE=True
        )
    return total, counted


@triton.jit
def reduce_item(
    item, items, partial, partial_degree, means, degree, gathered, reduced, programs, m,
    SPLITS: tl.constexpr, ROWS: tl.constexpr, SUMS: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """An item's share of its head's W and δ: ROWS anchors, where there are so many."""
    first = (item % SPLITS) * ROWS
    if (item < items) & (first < m):
        head = item // SPLITS
        wait_for(gathered + head, SPLITS)
        place = ((item // programs) % SUMS * programs + item % programs) // SPLITS
        total, counted = sum_rows(partial, partial_degree, place, first, m, SPLITS=SPLITS, ROWS=ROWS, D=D, D_PAD=D_PAD)
        rows = first + tl.arange(0, ROWS)
        at = head.to(tl.int64) * m
        store_matrix(means + at * D, means_of(total, counted), first, m, ROWS, D, D_PAD)
        tl.store(degree + at + rows, counted, mask=rows < m)
        arrive(reduced + head, PRECISION == "interpreted")


@triton.jit
def scatter_tile(
    step, a, w, program, programs, items, means, reduced, out, n, m, heads, out_strides,
    SPLITS: tl.constexpr, SLICES: tl.constexpr, TILES: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """O of the tile that was gathered in `step`; returns W, another one where an item begins."""
    tile = step % TILES
    item = (step // TILES) * programs + program
    live = (step >= 0) & (item < items)
    head = item // SPLITS
    if live & (tile == 0):
        wait_for(reduced + head, SLICES)
        rows = tl.arange(0, BLOCK_M)
        columns = tl.arange(0, D_PAD)
        w = tl.load(
            means + head.to(tl.int64) * m * D + (rows[:, None] * D + columns[None, :]),
            mask=(rows < m)[:, None] & (columns < D)[None, :], other=0.0, cache_modifier=".cg",
        ).to(w.dtype)  # fmt: skip
    o = dot(a, w, PRECISION)
    if live:
        start = ((item % SPLITS) * TILES + tile) * BLOCK_N
        store_tokens(
            head_of(out, head, heads, out_strides), o, start, n, out_strides, BLOCK_N, D, D_PAD, EVEN,
            EVICT="evict_first",
        )  # fmt: skip
    return w


@triton.jit
def moved_on(window, newest, LAG: tl.constexpr, PRECISION: tl.constexpr):
    """The window without its oldest tile and with the newest.

    Each tile is moved by an instruction of its own: a value that a loop hands on as it got it makes Triton count
    iterations apart and load nothing ahead.
    """
    rest = ()
    for i in tl.static_range(1, LAG):
        if PRECISION == "interpreted":
            rest = rest + (window[i],)  # noqa: RUF005 - Triton has no *rest
        else:
            moved = tl.inline_asm_elementwise(
                "mov.b32 $0, $1;", "=r,r", [window[i]], dtype=window[i].dtype, is_pure=True, pack=2
            )  # fmt: skip
            rest = rest + (moved,)  # noqa: RUF005
    return rest + (newest,)  # noqa: RUF005


@triton.jit
def skewed_kernel(
    k, v, anchors, partial, partial_degree, means, degree, out, counters, scale, n, m: tl.constexpr, heads, parts,
    programs, k_strides, v_strides, out_strides,
    SPLITS: tl.constexpr, SLICES: tl.constexpr, ROWS: tl.constexpr, TILES: tl.constexpr, LAG: tl.constexpr,
    REDUCE: tl.constexpr, SUMS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The whole forward pass. parts = b·h; counters: 2·parts zeros; partial: SUMS matrices a program; SLICES is
    ⌈m/ROWS⌉; EVEN: n is a multiple of TILES · BLOCK_N."""
    program = tl.program_id(0)
    gathered = counters
    reduced = counters + parts
    items = parts * SPLITS
    steps = tl.cdiv(items, programs) * TILES
    dtype = k.dtype.element_ty
    ut = tl.trans(load_matrix(anchors, 0, m, BLOCK_M, D, D_PAD).to(dtype))
    blank = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32).to(dtype)
    window = (blank,) * LAG
    w = tl.zeros((BLOCK_M, D_PAD), dtype=tl.float32).to(dtype)
    total = tl.zeros((D_PAD, BLOCK_M), dtype=tl.float32)
    counted = tl.zeros((BLOCK_N // 16, 8, BLOCK_M), dtype=tl.float32)
    for step in range(steps):
        tile = step % TILES
        item = (step // TILES) * programs + program
        here = tl.minimum(item, items - 1)  # a program without an item gathers the last one's, for nobody
        head = here // SPLITS
        start = ((here % SPLITS) * TILES + tile) * BLOCK_N
        tile_k = load_tokens(
            head_of(k, head, heads, k_strides), start, n, k_strides, BLOCK_N, D, D_PAD, EVEN, EVICT="evict_first"
        )
        tile_v = load_tokens(
            head_of(v, head, heads, v_strides), start, n, v_strides, BLOCK_N, D, D_PAD, EVEN, EVICT="evict_first"
        )
        a = softmax(logits(tile_k, ut, 0, m, PADDED, PRECISION), scale, start, n, MASKED=not EVEN).to(dtype)
        total = add_dot(tl.trans(tile_v), a, total, PRECISION)
        # Rows r and r + 8 are one thread's: an addition in registers.
        counted += tl.sum(tl.reshape(a.to(tl.float32), (BLOCK_N // 16, 2, 8, BLOCK_M)), 1)
        if (tile == REDUCE) & (step >= TILES):
            reduce_item(
                item - programs, items, partial, partial_degree, means, degree, gathered, reduced, programs, m,
                SPLITS=SPLITS, ROWS=ROWS, SUMS=SUMS, D=D, D_PAD=D_PAD, PRECISION=PRECISION,
            )  # fmt: skip
        w = scatter_tile(
            step - LAG, window[0], w, program, programs, items, means, reduced, out, n, m, heads, out_strides,
            SPLITS=SPLITS, SLICES=SLICES, TILES=TILES, BLOCK_N=BLOCK_N, BLOCK_M=BLOCK_M, D=D, D_PAD=D_PAD, EVEN=EVEN,
            PRECISION=PRECISION,
        )  # fmt: skip
        window = moved_on(window, a, LAG, PRECISION)
        if tile == TILES - 1:
            if item < items:
                at = ((step // TILES) % SUMS * programs + program).to(tl.int64) * m
                rows = tl.arange(0, BLOCK_M)
                store_matrix(partial + at * D, tl.trans(total), 0, m, BLOCK_M, D, D_PAD)
                tl.store(partial_degree + at + rows, tl.sum(tl.sum(counted, 0), 0), mask=rows < m)
                arrive(gathered + head, PRECISION == "interpreted")
            total = tl.zeros((D_PAD, BLOCK_M), dtype=tl.float32)
            counted = tl.zeros((BLOCK_N // 16, 8, BLOCK_M), dtype=tl.float32)
    for step in range(steps, steps + LAG):
        if step == steps + REDUCE:
            reduce_item(
                (steps // TILES - 1) * programs + program, items, partial, partial_degree, means, degree, gathered,
                reduced, programs, m, SPLITS=SPLITS, ROWS=ROWS, SUMS=SUMS, D=D, D_PAD=D_PAD, PRECISION=PRECISION,
            )  # fmt: skip
        w = scatter_tile(
            step - LAG, window[0], w, program, programs, items, means, reduced, out, n, m, heads, out_strides,
            SPLITS=SPLITS, SLICES=SLICES, TILES=TILES, BLOCK_N=BLOCK_N, BLOCK_M=BLOCK_M, D=D, D_PAD=D_PAD, EVEN=EVEN,
            PRECISION=PRECISION,
        )  # fmt: skip
        window = moved_on(window, blank, LAG, PRECISION)


@triton.jit
def clear_kernel(counters, size, BLOCK: tl.constexpr):
    """Zeros."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(counters + at, tl.zeros((BLOCK,), dtype=tl.int32), mask=at < size)

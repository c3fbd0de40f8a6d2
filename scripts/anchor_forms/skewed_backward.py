"""One launch for the backward pass: K and G stay in shared memory until their head's dM and dδ are there.

It moves 5 units of b·h·n·d elements: K, G, V read, dK, dV written; 6 where G is read again (not KEPT), for long heads.

Items, rounds, `programs` and LAG are those of `skewed`; a program's warps have three roles:

    produce    one: K and G of the next tiles by tensor maps (TMA) into a ring of PLACES, V of those to differentiate;
    work       eight, in step t: 1. gather: A of tile t from K, AᵀG; the tile stays where it is; 2. where the tile of
               LAG steps before begins an item: wait for its head's dM and dδ; 3. at an item's end write its sums;
               4. differentiate the tile of LAG steps before: A again, dA from G, W, V, dM, dδ; dK, over K, dV, dU;
    relate     four: say that an item's sums are there (`gathered`, a counter a head), wait for all of the head, add
               those of ROWS anchors and make dM and dδ of them, say so (`reduced`), wait for all, let `work` go on.

So the dM of an item have LAG − TILES + 1 tiles' time but for a gathering. What must stay on chip meanwhile is K, of
which A, dS U and dSᵀK are made, and G or G Wᵀ, as large: 256 bytes a token at d = 64, of LAG + 2 tiles. Registers have
no room for it (docs/long_heads.md).

Why this cannot hang, if all programs run at once (a cooperative launch, which the driver refuses if they do not fit): a
head's items are of one round, since a head's splits divide `programs`. Suppose that all of the rounds before r are
related everywhere. `work` waits for none but `produce` and rounds before r until it has written its sums of round r
(LAG < 2 TILES); so these come everywhere, then all reductions, and round r is related. `produce` waits in the order in
which it fills, K and G of tile t, then V of tile t − LAG: the place of tile t − PLACES is given back in step
t − PLACES + LAG + 1 < t, the one place of V in step t − 1. So what step t needs comes once step t − 1 is done.

Why one place of partial sums a program is enough: those of round r + 1 are written in 3., after 2. of the same step or
one before it (LAG < 2 TILES) has waited until all of its head's sums of round r were reduced, so read.

Why the data is there: as in `specialised`; sums pass from `work` by an mbarrier to `relate`, whose release covers them,
and dM and dδ back. A place of K is given back when the copy of dK has read it, a step later.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from anchor_forms.specialised import arrive, barrier, load_async, store_async, token_map, turn_of, wait_for
from attentions.kernels.anchor.algebra import mean_gradients_of, softmax


@gluon.jit
def place_of(step, program, programs, splits, heads, TILES: gl.constexpr, BLOCK_N: gl.constexpr):
    """Of a program's tile in tensors (b, h, n, d)."""
    item = (step // TILES) * programs + program
    head = item // splits
    return head // heads, head % heads, ((item % splits) * TILES + step % TILES) * BLOCK_N


@gluon.jit
def produce(
    k, v, g, k_tiles, v_tiles, g_tiles, again, loaded, emptied, spent, old_loaded, old_emptied, program, programs,
    splits, steps, parts, heads, n, k_strides, v_strides, g_strides,
    TILES: gl.constexpr, LAG: gl.constexpr, PLACES: gl.constexpr, KEPT: gl.constexpr,
    BLOCK_N: gl.constexpr, D: gl.constexpr, D_PAD: gl.constexpr,
):  # fmt: skip
    """Keep K and G of the next tiles coming, and V of those to differentiate, with G again where it was not KEPT."""
    from_k = token_map(k, k_tiles, n, heads, parts, k_strides, BLOCK_N, D, D_PAD)
    from_v = token_map(v, v_tiles, n, heads, parts, v_strides, BLOCK_N, D, D_PAD)
    from_g = token_map(g, g_tiles, n, heads, parts, g_strides, BLOCK_N, D, D_PAD)
    BYTES: gl.constexpr = BLOCK_N * D_PAD * 2
    for step in range(steps + LAG):
        if step < steps:
            place, lap = turn_of(step, PLACES)
            mbarrier.wait(emptied.index(place), lap ^ 1)
            of_g = place
            if not KEPT:
                of_g, lap = turn_of(step, 2)
                mbarrier.wait(spent.index(of_g), lap ^ 1)
            batch, head, start = place_of(step, program, programs, splits, heads, TILES, BLOCK_N)
            mbarrier.expect(loaded.index(place), 2 * BYTES)
            load_async(from_k, [batch, head, start, 0], loaded.index(place), k_tiles.index(place))
            load_async(from_g, [batch, head, start, 0], loaded.index(place), g_tiles.index(of_g))
        old = step - LAG
        if old >= 0:
            mbarrier.wait(old_emptied.index(0), (old & 1) ^ 1)
            batch, head, start = place_of(old, program, programs, splits, heads, TILES, BLOCK_N)
            mbarrier.expect(old_loaded.index(0), BYTES if KEPT else 2 * BYTES)
            load_async(from_v, [batch, head, start, 0], old_loaded.index(0), v_tiles.index(0))
            if not KEPT:
                load_async(from_g, [batch, head, start, 0], old_loaded.index(0), again.index(0))


@gluon.jit
def begun(k, u, BLOCK_N: gl.constexpr, BLOCK_M: gl.constexpr, S: gl.constexpr):
    """The product K Uᵀ of a tile, to be waited for."""
    s = gl.zeros([BLOCK_N, BLOCK_M], gl.float32, S)
    return warpgroup_mma(k.reshape([BLOCK_N, u.shape[1]]), u.permute([1, 0]), s, use_acc=False, is_async=True)


@gluon.jit
def weights(s, scale, n, m, BLOCK_M: gl.constexpr, PADDED: gl.constexpr, S: gl.constexpr):
    """A of a tile. Of tokens beyond n too: K, V and G are zero there."""
    if PADDED:
        anchors = gl.arange(0, BLOCK_M, gl.SliceLayout(0, S))
        s = gl.where((anchors < m)[None, :], s, float("-inf"))
    return softmax(s, scale, 0, n, MASKED=False)


@gluon.jit
def reduce_gradients(
    item, partial, means, degree, grad_sums, grad_degree, m, programs, splits,
    ROWS: gl.constexpr, BLOCK_M: gl.constexpr, D: gl.constexpr, D_PAD: gl.constexpr,
):  # fmt: skip
    """An item's share of its head's dM and dδ: ROWS anchors, several splits at a time."""
    FEW: gl.constexpr = min(ROWS, 4)
    WIDE: gl.constexpr = BLOCK_M // FEW // 4
    ACROSS: gl.constexpr = WIDE >= 8
    WARPS: gl.constexpr = gl.num_warps()
    ALL: gl.constexpr = gl.BlockedLayout(
        [1, 1, 4], [2, 1, 16] if ACROSS else [1, 2, 16], [WARPS, 1, 1] if ACROSS else [1, WARPS, 1], [2, 1, 0]
    )
    SUM: gl.constexpr = gl.SliceLayout(0, ALL)
    head = item // splits
    lane = gl.arange(0, WIDE, gl.SliceLayout(1, gl.SliceLayout(2, ALL)))
    columns = gl.arange(0, D_PAD, gl.SliceLayout(0, SUM))
    begin = item % programs - item % splits  # the program of the head's first item
    for few in range(0, ROWS, FEW):
        first = (item % splits) * ROWS + few
        row = first + gl.arange(0, FEW, gl.SliceLayout(0, gl.SliceLayout(2, ALL)))
        rows = first + gl.arange(0, FEW, gl.SliceLayout(1, SUM))
        inside = rows[:, None] * D + columns[None, :]
        mask = (rows < m)[:, None] & (columns < D)[None, :]
        total = gl.zeros([WIDE, FEW, D_PAD], gl.float32, ALL)
        for start in range(0, splits, WIDE):
            split = start + lane
            at = ((begin + split)[:, None] * m + row[None, :]) * D
            there = (split < splits)[:, None] & (row < m)[None, :]
            at = gl.expand_dims(at, 2) + gl.expand_dims(gl.expand_dims(columns, 0), 0)
            there = gl.expand_dims(there, 2) & gl.expand_dims(gl.expand_dims(columns < D, 0), 0)
            total += gl.load(partial + at, mask=there, other=0.0, cache_modifier=".cg")
        w = gl.load(means + head * m * D + inside, mask=mask, other=0.0)
        d = gl.load(degree + head * m + rows, mask=rows < m, other=0.0)
        grad_sum, grad_d = mean_gradients_of(gl.sum(total, 0), w, d)
        gl.store(grad_sums + head * m * D + inside, grad_sum, mask=mask)
        gl.store(grad_degree + head * m + rows, grad_d, mask=rows < m)


@gluon.jit
def relate(
    summed, ready, means, degree, partial, grad_sums, grad_degree, gathered, reduced, m, program, programs,
    splits, parts,
    SLICES: gl.constexpr, ROWS: gl.constexpr, BLOCK_M: gl.constexpr, D: gl.constexpr,
    D_PAD: gl.constexpr,
):  # fmt: skip
    """Between programs: tell of each item's sums, have its head's dM and dδ from all who have its tokens."""
    done = 0
    for item in range(program, parts * splits, programs):
        head = item // splits
        mbarrier.wait(summed.index(0), done & 1)
        arrive(gathered + head)
        if (item % splits) * ROWS < m:
            wait_for(gathered + head, splits)
            reduce_gradients(
                item, partial, means, degree, grad_sums, grad_degree, m, programs, splits, ROWS, BLOCK_M, D, D_PAD
            )
            arrive(reduced + head)
        wait_for(reduced + head, SLICES)
        barrier()
        mbarrier.arrive(ready.index(0))
        done += 1  # noqa: SIM113 - a loop of the kernel's


@gluon.jit
def work(
    k_tiles, v_tiles, g_tiles, again, tile, u, w, dm, loaded, emptied, spent, old_loaded, old_emptied, summed, ready,
    means, partial, grad_sums, grad_degree, grad_k, grad_v, grad_partial, scale, root, n, m, program, programs, splits,
    steps, parts, heads, grad_k_strides, grad_v_strides,
    TILES: gl.constexpr, LAG: gl.constexpr, PLACES: gl.constexpr, KEPT: gl.constexpr,
    BLOCK_N: gl.constexpr, BLOCK_M: gl.constexpr, D: gl.constexpr, D_PAD: gl.constexpr, PADDED: gl.constexpr,
):  # fmt: skip
    """Gather and differentiate. tile: (1, 1, BLOCK_N, 64) of shared memory, in turn of A, dS and dV."""
    WARPS: gl.constexpr = gl.num_warps()
    ACROSS: gl.constexpr = WARPS // 4
    DOWN: gl.constexpr = min(WARPS, BLOCK_N // 16)
    S: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [DOWN, WARPS // DOWN], [16, BLOCK_M * DOWN // WARPS, 16])
    SUM: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, ACROSS], [16, D_PAD // ACROSS, 16])
    LOADED: gl.constexpr = gl.BlockedLayout([1, 4], [2, 16], [WARPS, 1], [1, 0])
    DTYPE: gl.constexpr = k_tiles.dtype
    to_grad_k = token_map(grad_k, k_tiles, n, heads, parts, grad_k_strides, BLOCK_N, D, D_PAD)
    to_grad_v = token_map(grad_v, k_tiles, n, heads, parts, grad_v_strides, BLOCK_N, D, D_PAD)
    rows = gl.arange(0, BLOCK_M, gl.SliceLayout(1, SUM))
    columns = gl.arange(0, D_PAD, gl.SliceLayout(0, SUM))
    inside = rows[:, None] * D + columns[None, :]
    mask = (rows < m)[:, None] & (columns < D)[None, :]
    anchor = gl.arange(0, BLOCK_M, gl.SliceLayout(0, S))
    each = gl.arange(0, BLOCK_M, gl.SliceLayout(1, LOADED))
    column = gl.arange(0, D_PAD, gl.SliceLayout(0, LOADED))
    within = each[:, None] * D + column[None, :]
    there = (each < m)[:, None] & (column < D)[None, :]
    weight = tile.reshape([BLOCK_N, BLOCK_M])
    total = gl.zeros([BLOCK_M, D_PAD], gl.float32, SUM)
    du = gl.zeros([BLOCK_M, D_PAD], gl.float32, SUM)
    for step in range(steps + LAG):
        old = step - LAG
        of_old = ((old // TILES) * programs + program) // splits
        a = gl.zeros([BLOCK_N, BLOCK_M], gl.float32, S)
        if step < steps:
            place, lap = turn_of(step, PLACES)
            mbarrier.wait(loaded.index(place), lap)
            s = warpgroup_mma_wait(0, [begun(k_tiles.index(place), u, BLOCK_N, BLOCK_M, S)])
            a = weights(s, scale, n, m, BLOCK_M, PADDED, S)
        if old >= 1:  # dK and dV of the tile before have left
            tma.store_wait(0)
            barrier()
            mbarrier.arrive(emptied.index((old - 1) % PLACES))
        if step < steps:
            of_g = step % PLACES if KEPT else step % 2
            weight.store(a.to(DTYPE))
            fence_async_shared()
            barrier()
            total = warpgroup_mma(
                weight.permute([1, 0]), g_tiles.index(of_g).reshape([BLOCK_N, D_PAD]), total, is_async=True
            )
            total = warpgroup_mma_wait(0, [total])
            barrier()
            if not KEPT:
                mbarrier.arrive(spent.index(of_g))
        if (old >= 0) & (old % TILES == 0):
            at = of_old * m * D
            w.store(gl.load(means + at + within, mask=there, other=0.0).to(DTYPE))
            mbarrier.wait(ready.index(0), (old // TILES) & 1)
            dm.store(gl.load(grad_sums + at + within, mask=there, other=0.0, cache_modifier=".cg").to(DTYPE))
            fence_async_shared()
            barrier()
        if (step % TILES == TILES - 1) & (step < steps):
            gl.store(partial + program * m * D + inside, total, mask=mask)
            barrier()
            mbarrier.arrive(summed.index(0))
            total = gl.zeros([BLOCK_M, D_PAD], gl.float32, SUM)
        if old >= 0:
            dd = gl.load(grad_degree + of_old * m + anchor, mask=anchor < m, other=0.0, cache_modifier=".cg")
            place = old % PLACES
            k_tile = k_tiles.index(place).reshape([BLOCK_N, D_PAD])
            g_tile = (g_tiles.index(place) if KEPT else again.index(0)).reshape([BLOCK_N, D_PAD])
            mbarrier.wait(old_loaded.index(0), old & 1)
            s = begun(k_tile, u, BLOCK_N, BLOCK_M, S)
            da = gl.zeros([BLOCK_N, BLOCK_M], gl.float32, S)
            da = warpgroup_mma(g_tile, w.permute([1, 0]), da, use_acc=False, is_async=True)
            da = warpgroup_mma(v_tiles.index(0).reshape([BLOCK_N, D_PAD]), dm.permute([1, 0]), da, is_async=True)
            a = weights(warpgroup_mma_wait(2, [s]), scale, n, m, BLOCK_M, PADDED, S)
            da = warpgroup_mma_wait(0, [da]) + dd[None, :]
            ds = (a * (da - gl.sum(a * da, 1)[:, None])).to(DTYPE)
            weight.store(ds)
            fence_async_shared()
            barrier()
            mbarrier.arrive(old_emptied.index(0))
            du = warpgroup_mma(weight.permute([1, 0]), k_tile, du, is_async=True)
            dk = gl.zeros([BLOCK_N, D_PAD], gl.float32, S)
            dk = warpgroup_mma(weight, u, dk, use_acc=False, is_async=True)
            dv = gl.zeros([BLOCK_N, D_PAD], gl.float32, S)
            narrow = gl.convert_layout(a.to(DTYPE), gl.DotOperandLayout(0, S, 2))
            dv = warpgroup_mma(narrow, dm, dv, use_acc=False, is_async=True)
            du, dk, dv = warpgroup_mma_wait(0, [du, dk, dv])
            barrier()
            k_tile.store((dk * root).to(DTYPE))
            tile.reshape([BLOCK_N, D_PAD]).store(dv.to(DTYPE))
            fence_async_shared()
            barrier()
            batch, head, start = place_of(old, program, programs, splits, heads, TILES, BLOCK_N)
            store_async(to_grad_k, [batch, head, start, 0], k_tiles.index(place))
            store_async(to_grad_v, [batch, head, start, 0], tile)
    tma.store_wait(0)
    gl.store(grad_partial + program * m * D + inside, du * root, mask=mask)


@gluon.jit
def skewed_backward_kernel(
    k, v, g, anchors, means, degree, partial, grad_sums, grad_degree, grad_k, grad_v, grad_partial, counters, scale,
    root, n, m: gl.constexpr, heads, parts, programs, splits, k_strides, v_strides, g_strides, grad_k_strides,
    grad_v_strides,
    SLICES: gl.constexpr, ROWS: gl.constexpr, TILES: gl.constexpr, LAG: gl.constexpr,
    PLACES: gl.constexpr, KEPT: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_M: gl.constexpr, D: gl.constexpr,
    D_PAD: gl.constexpr, PADDED: gl.constexpr,
):  # fmt: skip
    """All of the backward pass but the sum of dU over programs. parts = b·h; counters: 2·parts zeros; partial and
    grad_partial: a matrix a program; SLICES = ⌈m/ROWS⌉; PLACES ≥ LAG + 2. BLOCK_M = D_PAD: dV lies where A did."""
    DTYPE: gl.constexpr = k.dtype.element_ty
    TOKENS: gl.constexpr = gl.NVMMASharedLayout.get_default_for([1, 1, BLOCK_N, D_PAD], DTYPE)
    MATRIX: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BLOCK_M, D_PAD], DTYPE)
    LOADED: gl.constexpr = gl.BlockedLayout([1, 4], [2, 16], [gl.num_warps(), 1], [1, 0])
    program = gl.program_id(0)
    rows = gl.arange(0, BLOCK_M, gl.SliceLayout(1, LOADED))
    columns = gl.arange(0, D_PAD, gl.SliceLayout(0, LOADED))
    given = gl.load(
        anchors + rows[:, None] * D + columns[None, :], mask=(rows < m)[:, None] & (columns < D)[None, :], other=0.0
    )
    u = gl.allocate_shared_memory(DTYPE, [BLOCK_M, D_PAD], MATRIX, given.to(DTYPE))
    w = gl.allocate_shared_memory(DTYPE, [BLOCK_M, D_PAD], MATRIX)
    dm = gl.allocate_shared_memory(DTYPE, [BLOCK_M, D_PAD], MATRIX)
    k_tiles = gl.allocate_shared_memory(DTYPE, [PLACES, 1, 1, BLOCK_N, D_PAD], TOKENS)
    g_tiles = gl.allocate_shared_memory(DTYPE, [PLACES if KEPT else 2, 1, 1, BLOCK_N, D_PAD], TOKENS)
    v_tiles = gl.allocate_shared_memory(DTYPE, [1, 1, 1, BLOCK_N, D_PAD], TOKENS)
    again = v_tiles
    if not KEPT:
        again = gl.allocate_shared_memory(DTYPE, [1, 1, 1, BLOCK_N, D_PAD], TOKENS)
    tile = gl.allocate_shared_memory(DTYPE, [1, 1, BLOCK_N, D_PAD], TOKENS)
    loaded = gl.allocate_shared_memory(gl.int64, [PLACES, 1], mbarrier.MBarrierLayout())
    emptied = gl.allocate_shared_memory(gl.int64, [PLACES, 1], mbarrier.MBarrierLayout())
    spent = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    old_loaded = gl.allocate_shared_memory(gl.int64, [1, 1], mbarrier.MBarrierLayout())
    old_emptied = gl.allocate_shared_memory(gl.int64, [1, 1], mbarrier.MBarrierLayout())
    summed = gl.allocate_shared_memory(gl.int64, [1, 1], mbarrier.MBarrierLayout())
    ready = gl.allocate_shared_memory(gl.int64, [1, 1], mbarrier.MBarrierLayout())
    for place in gl.static_range(PLACES):
        mbarrier.init(loaded.index(place), 1)
        mbarrier.init(emptied.index(place), 1)
    for place in gl.static_range(2):
        mbarrier.init(spent.index(place), 1)
    mbarrier.init(old_loaded.index(0), 1)
    mbarrier.init(old_emptied.index(0), 1)
    mbarrier.init(summed.index(0), 1)
    mbarrier.init(ready.index(0), 1)
    fence_async_shared()
    barrier()
    items = parts * splits
    steps = (items - program + programs - 1) // programs * TILES
    gl.warp_specialize(
        [
            (work, (
                k_tiles, v_tiles, g_tiles, again, tile, u, w, dm, loaded, emptied, spent, old_loaded, old_emptied,
                summed, ready, means, partial, grad_sums, grad_degree, grad_k, grad_v, grad_partial, scale, root, n, m,
                program, programs, splits, steps, parts, heads, grad_k_strides, grad_v_strides,
                TILES, LAG, PLACES, KEPT, BLOCK_N, BLOCK_M, D, D_PAD, PADDED,
            )),
            (relate, (
                summed, ready, means, degree, partial, grad_sums, grad_degree, counters, counters + parts, m, program,
                programs, splits, parts,
                SLICES, ROWS, BLOCK_M, D, D_PAD,
            )),
            (produce, (
                k, v, g, k_tiles, v_tiles, g_tiles, again, loaded, emptied, spent, old_loaded, old_emptied, program,
                programs, splits, steps, parts, heads, n, k_strides, v_strides, g_strides,
                TILES, LAG, PLACES, KEPT, BLOCK_N, D, D_PAD,
            )),
        ],
        [4, 1],
        [64 if BLOCK_N < 128 else 48, 32],
    )  # fmt: skip

"""One launch, K read once: of a program's warps one loads tokens, eight gather, four scatter; A lies in shared memory.

A head's tokens are cut into items of TILES tiles; `programs`, a multiple of a head's SPLITS items, take item program,
program + programs, … in rounds. Three roles go through a program's tiles, each at its own pace:

    produce    K and V of a tile by tensor maps (TMA) into one of STAGES places;
    gather     A of the tile into one of PLACES places, AᵀV and Aᵀ1 in registers; at an item's end it writes the sums
               and says so (`gathered`, a counter a head);
    scatter    waits until all SPLITS sums of the item's head are there, adds those of ROWS anchors and says so
               (`reduced`), waits for the means; then O = A W, tile by tile, each put over its A and stored by a map.

Tile i of a program lies in place i mod PLACES, in its lap i // PLACES, whose parity is the phase of the place's
mbarrier (`turn_of`): `loaded` and `emptied` for a stage, `scattered` for a place of A.

Why this cannot hang, if all programs run at once (a cooperative launch, which the driver refuses if they do not fit):
a head's items are of one round, since SPLITS divides `programs`. Suppose all rounds before r done everywhere. In round
r produce waits for gather alone, gather for loads and for places of A whose tile came PLACES ≥ TILES before, so in a
round before: all sums of round r get written. Scatter, done with the round before, waits for these sums and adds its
ROWS anchors without another wait: all means of round r come. The rest of its round waits for nothing.

Why PLACES / TILES places of partial sums a program are enough: gather writes the sums of round r over those of round
r − PLACES / TILES after it wrote A of the item's last tile, into a place that was scattered: of the tile PLACES before,
the last of that round. Its scatter had waited until all sums of its head and round were reduced, so read.

Why the data is there: between programs as in `skewed`: stores, a barrier, one thread's atomic with release semantics at
the GPU's scope; one thread acquires, and its result passes a barrier. What crosses programs is read from L2 (.cg).
Between a role's warps and maps or tensor cores: stores to shared memory, each thread's fence to the asynchronous proxy,
a barrier. Scatter sees A by the chain that brings the sums. A place is free when the store of its O has read it.

AᵀV and Aᵀ1 are of the rounded A, as split's; for the latter 16 columns of ones in shared memory cost 4 registers.
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

from attentions.kernels.anchor.algebra import means_of, softmax

# By the names of Triton 3.9, else of 3.6.
load_async = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
store_async = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global
barrier = getattr(gl, "barrier", None) or gl.thread_barrier


@gluon.jit
def turn_of(tile, PLACES: gl.constexpr):
    """Where in a ring a tile lies, and the phase of its lap."""
    return tile % PLACES, (tile // PLACES) & 1


@gluon.jit
def start_of(item, tile, SPLITS: gl.constexpr, TILES: gl.constexpr, BLOCK_N: gl.constexpr):
    """A tile's first token in its head."""
    return ((item % SPLITS) * TILES + tile) * BLOCK_N


@gluon.jit
def sums_of(item, program, programs, TILES: gl.constexpr, PLACES: gl.constexpr):
    """Where an item's partial sums lie, in (m, d) matrices."""
    SUMS: gl.constexpr = PLACES // TILES
    return program * SUMS + (item // programs) % SUMS


@gluon.jit
def token_map(
    pointer, tiles, n, heads, parts, strides, BLOCK_N: gl.constexpr, D: gl.constexpr, D_PAD: gl.constexpr
):  # fmt: skip
    """A tensor map of all heads' tokens (b, h, n, D), to or from `tiles`: beyond n and D zeros, and nothing written."""
    return tma.make_tensor_descriptor(
        pointer, shape=[parts // heads, heads, n, D], strides=[strides[0], strides[1], strides[2], 1],
        block_shape=[1, 1, BLOCK_N, D_PAD], layout=tiles.layout,
    )  # fmt: skip


@gluon.jit
def arrive(counter):
    """Make these warps' stores visible to all programs and count one more that is done."""
    barrier()
    gl.atomic_add(counter, 1, sem="release", scope="gpu")


@gluon.jit
def wait_for(counter, target):
    """Wait until `target` have arrived."""
    while gl.atomic_add(counter, 0, sem="acquire", scope="gpu") < target:
        pass


@gluon.jit
def produce(
    k, v, k_tiles, v_tiles, loaded, emptied, program, programs, parts, heads, n, k_strides, v_strides,
    SPLITS: gl.constexpr, TILES: gl.constexpr, STAGES: gl.constexpr, BLOCK_N: gl.constexpr, D: gl.constexpr,
    D_PAD: gl.constexpr,
):  # fmt: skip
    """Keep K and V of the next tiles coming."""
    from_k = token_map(k, k_tiles, n, heads, parts, k_strides, BLOCK_N, D, D_PAD)
    from_v = token_map(v, v_tiles, n, heads, parts, v_strides, BLOCK_N, D, D_PAD)
    done = 0
    for item in range(program, parts * SPLITS, programs):
        head = item // SPLITS
        for tile in range(TILES):
            stage, phase = turn_of(done, STAGES)
            mbarrier.wait(emptied.index(stage), phase ^ 1)
            mbarrier.expect(loaded.index(stage), 2 * BLOCK_N * D_PAD * 2)  # two tiles of 16 bits
            at = [head // heads, head % heads, start_of(item, tile, SPLITS, TILES, BLOCK_N), 0]
            load_async(from_k, at, loaded.index(stage), k_tiles.index(stage))
            load_async(from_v, at, loaded.index(stage), v_tiles.index(stage))
            done += 1


@gluon.jit
def gather(
    k_tiles, v_tiles, a_tiles, u, ones, loaded, emptied, scattered, partial, partial_degree, gathered, scale, n, m,
    program, programs, parts,
    SPLITS: gl.constexpr, TILES: gl.constexpr, STAGES: gl.constexpr, PLACES: gl.constexpr, BLOCK_N: gl.constexpr,
    BLOCK_M: gl.constexpr, D: gl.constexpr, D_PAD: gl.constexpr, EVEN: gl.constexpr, PADDED: gl.constexpr,
):  # fmt: skip
    """A of each tile, and each item's AᵀV and Aᵀ1."""
    WARPS: gl.constexpr = gl.num_warps()
    ACROSS: gl.constexpr = WARPS // 4
    S: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [WARPS, 1], [16, BLOCK_M, 16])
    TOTAL: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, ACROSS], [16, D_PAD // ACROSS, 16])
    COUNTED: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, ACROSS], [16, 16 // ACROSS, 16])
    rows = gl.arange(0, BLOCK_M, gl.SliceLayout(1, TOTAL))
    columns = gl.arange(0, D_PAD, gl.SliceLayout(0, TOTAL))
    each = gl.arange(0, BLOCK_M, gl.SliceLayout(1, COUNTED))
    tokens = gl.arange(0, BLOCK_N, gl.SliceLayout(1, S))
    anchors = gl.arange(0, BLOCK_M, gl.SliceLayout(0, S))
    done = 0
    for item in range(program, parts * SPLITS, programs):
        total = gl.zeros([BLOCK_M, D_PAD], gl.float32, TOTAL)
        counted = gl.zeros([BLOCK_M, 16], gl.float32, COUNTED)
        for tile in range(TILES):
            stage, phase = turn_of(done, STAGES)
            place, lap = turn_of(done, PLACES)
            mbarrier.wait(loaded.index(stage), phase)
            s = gl.zeros([BLOCK_N, BLOCK_M], gl.float32, S)
            s = warpgroup_mma(
                k_tiles.index(stage).reshape([BLOCK_N, D_PAD]), u.permute([1, 0]), s, use_acc=False, is_async=True
            )
            s = warpgroup_mma_wait(0, [s])
            if PADDED:
                s = gl.where((anchors < m)[None, :], s, float("-inf"))
            a = softmax(s, scale, 0, n, MASKED=False)
            if not EVEN:
                a = gl.where((start_of(item, tile, SPLITS, TILES, BLOCK_N) + tokens < n)[:, None], a, 0.0)
            mbarrier.wait(scattered.index(place), lap ^ 1)
            kept = a_tiles.index(place).reshape([BLOCK_N, BLOCK_M])
            kept.store(a.to(a_tiles.dtype))
            fence_async_shared()
            barrier()
            at = kept.permute([1, 0])
            total = warpgroup_mma(at, v_tiles.index(stage).reshape([BLOCK_N, D_PAD]), total, is_async=True)
            counted = warpgroup_mma(at, ones.permute([1, 0]), counted, is_async=True)
            total, counted = warpgroup_mma_wait(0, [total, counted])
            barrier()
            mbarrier.arrive(emptied.index(stage))
            done += 1
        first = sums_of(item, program, programs, TILES, PLACES) * m
        gl.store(
            partial + first * D + (rows[:, None] * D + columns[None, :]), total,
            mask=(rows < m)[:, None] & (columns < D)[None, :],
        )  # fmt: skip
        gl.store(partial_degree + first + each, gl.max(counted, 1), mask=each < m)  # 16 equal columns
        arrive(gathered + item // SPLITS)


@gluon.jit
def reduce_rows(
    item, partial, partial_degree, means, degree, m, programs,
    SPLITS: gl.constexpr, ROWS: gl.constexpr, TILES: gl.constexpr, PLACES: gl.constexpr, BLOCK_M: gl.constexpr,
    D: gl.constexpr, D_PAD: gl.constexpr,
):  # fmt: skip
    """An item's share of its head's W and δ: ROWS anchors, BLOCK_M / ROWS splits at a time."""
    WIDE: gl.constexpr = BLOCK_M // ROWS
    THREADS: gl.constexpr = [2, 1, 16] if WIDE >= 8 else [1, 2, 16]
    WARPS: gl.constexpr = [gl.num_warps(), 1, 1] if WIDE >= 8 else [1, gl.num_warps(), 1]
    ALL: gl.constexpr = gl.BlockedLayout([1, 1, 4], THREADS, WARPS, [2, 1, 0])
    EACH: gl.constexpr = gl.SliceLayout(2, ALL)
    SUM: gl.constexpr = gl.SliceLayout(0, ALL)
    lane = gl.arange(0, WIDE, gl.SliceLayout(1, EACH))
    rows = (item % SPLITS) * ROWS + gl.arange(0, ROWS, gl.SliceLayout(0, EACH))
    columns = gl.arange(0, D_PAD, gl.SliceLayout(0, SUM))
    total = gl.zeros([WIDE, ROWS, D_PAD], gl.float32, ALL)
    counted = gl.zeros([WIDE, ROWS], gl.float32, EACH)
    begin = item % programs - item % SPLITS  # the program of the head's first item
    for start in range(0, SPLITS, WIDE):
        split = start + lane
        place = sums_of(item - item % programs, begin + split, programs, TILES, PLACES)
        at = place[:, None] * m + rows[None, :]
        there = (split < SPLITS)[:, None] & (rows < m)[None, :]
        counted += gl.load(partial_degree + at, mask=there, other=0.0, cache_modifier=".cg")
        at = gl.expand_dims(at, 2) * D + gl.expand_dims(gl.expand_dims(columns, 0), 0)
        there = gl.expand_dims(there, 2) & gl.expand_dims(gl.expand_dims(columns < D, 0), 0)
        total += gl.load(partial + at, mask=there, other=0.0, cache_modifier=".cg")
    total = gl.sum(total, 0)
    counted = gl.convert_layout(gl.sum(counted, 0), gl.SliceLayout(1, SUM))
    rows = gl.convert_layout(rows, gl.SliceLayout(1, SUM))
    at = (item // SPLITS) * m + rows
    gl.store(
        means + at[:, None] * D + columns[None, :], means_of(total, counted),
        mask=(rows < m)[:, None] & (columns < D)[None, :],
    )  # fmt: skip
    gl.store(degree + at, counted, mask=rows < m)


@gluon.jit
def scatter(
    a_tiles, w, scattered, partial, partial_degree, means, degree, out, gathered, reduced, m, program, programs, parts,
    heads, n, out_strides,
    SPLITS: gl.constexpr, SLICES: gl.constexpr, ROWS: gl.constexpr, TILES: gl.constexpr, PLACES: gl.constexpr,
    BLOCK_N: gl.constexpr, BLOCK_M: gl.constexpr, D: gl.constexpr, D_PAD: gl.constexpr,
):  # fmt: skip
    """Each head's means, by all who have its tokens, and O."""
    LOADED: gl.constexpr = gl.BlockedLayout([1, 4], [2, 16], [gl.num_warps(), 1], [1, 0])
    O: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [gl.num_warps(), 1], [16, D_PAD, 16])  # noqa: E741
    to_out = token_map(out, a_tiles, n, heads, parts, out_strides, BLOCK_N, D, D_PAD)
    rows = gl.arange(0, BLOCK_M, gl.SliceLayout(1, LOADED))
    columns = gl.arange(0, D_PAD, gl.SliceLayout(0, LOADED))
    done = 0
    for item in range(program, parts * SPLITS, programs):
        head = item // SPLITS
        wait_for(gathered + head, SPLITS)
        if (item % SPLITS) * ROWS < m:
            reduce_rows(
                item, partial, partial_degree, means, degree, m, programs,
                SPLITS, ROWS, TILES, PLACES, BLOCK_M, D, D_PAD,
            )  # fmt: skip
            arrive(reduced + head)
        wait_for(reduced + head, SLICES)
        loaded = gl.load(
            means + head * m * D + (rows[:, None] * D + columns[None, :]),
            mask=(rows < m)[:, None] & (columns < D)[None, :], other=0.0, cache_modifier=".cg",
        )  # fmt: skip
        w.store(loaded.to(w.dtype))
        fence_async_shared()
        barrier()
        for tile in range(TILES):
            place, _ = turn_of(done, PLACES)
            kept = a_tiles.index(place)
            o = gl.zeros([BLOCK_N, D_PAD], gl.float32, O)
            o = warpgroup_mma(kept.reshape([BLOCK_N, BLOCK_M]), w, o, use_acc=False, is_async=True)
            o = warpgroup_mma_wait(0, [o])
            barrier()
            kept.reshape([BLOCK_N, D_PAD]).store(o.to(a_tiles.dtype))
            fence_async_shared()
            barrier()
            store_async(to_out, [head // heads, head % heads, start_of(item, tile, SPLITS, TILES, BLOCK_N), 0], kept)
            tma.store_wait(0)
            barrier()
            mbarrier.arrive(scattered.index(place))
            done += 1


@gluon.jit
def specialised_kernel(
    k, v, anchors, partial, partial_degree, means, degree, out, counters, scale, n, m: gl.constexpr, heads, parts,
    programs, k_strides, v_strides, out_strides,
    SPLITS: gl.constexpr, SLICES: gl.constexpr, ROWS: gl.constexpr, TILES: gl.constexpr, STAGES: gl.constexpr,
    PLACES: gl.constexpr, BLOCK_N: gl.constexpr, BLOCK_M: gl.constexpr, D: gl.constexpr, D_PAD: gl.constexpr,
    EVEN: gl.constexpr, PADDED: gl.constexpr,
):  # fmt: skip
    """The whole forward pass. parts = b·h; counters: 2·parts zeros; partial: PLACES / TILES matrices a program;
    SLICES = ⌈m/ROWS⌉; EVEN: n is a multiple of TILES · BLOCK_N. BLOCK_M = D_PAD: O is written over A."""
    DTYPE: gl.constexpr = k.dtype.element_ty
    TOKENS: gl.constexpr = gl.NVMMASharedLayout.get_default_for([1, 1, BLOCK_N, D_PAD], DTYPE)
    MATRIX: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BLOCK_M, D_PAD], DTYPE)
    ROW: gl.constexpr = gl.NVMMASharedLayout.get_default_for([16, BLOCK_N], DTYPE)
    LOADED: gl.constexpr = gl.BlockedLayout([1, 4], [2, 16], [gl.num_warps(), 1], [1, 0])
    program = gl.program_id(0)
    rows = gl.arange(0, BLOCK_M, gl.SliceLayout(1, LOADED))
    columns = gl.arange(0, D_PAD, gl.SliceLayout(0, LOADED))
    given = gl.load(
        anchors + rows[:, None] * D + columns[None, :], mask=(rows < m)[:, None] & (columns < D)[None, :], other=0.0
    )
    u = gl.allocate_shared_memory(DTYPE, [BLOCK_M, D_PAD], MATRIX, given.to(DTYPE))
    ones = gl.allocate_shared_memory(DTYPE, [16, BLOCK_N], ROW, gl.full([16, BLOCK_N], 1.0, DTYPE, LOADED))
    w = gl.allocate_shared_memory(DTYPE, [BLOCK_M, D_PAD], MATRIX)
    k_tiles = gl.allocate_shared_memory(DTYPE, [STAGES, 1, 1, BLOCK_N, D_PAD], TOKENS)
    v_tiles = gl.allocate_shared_memory(DTYPE, [STAGES, 1, 1, BLOCK_N, D_PAD], TOKENS)
    a_tiles = gl.allocate_shared_memory(DTYPE, [PLACES, 1, 1, BLOCK_N, BLOCK_M], TOKENS)
    loaded = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    emptied = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    scattered = gl.allocate_shared_memory(gl.int64, [PLACES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(loaded.index(stage), 1)
        mbarrier.init(emptied.index(stage), 1)
    for place in gl.static_range(PLACES):
        mbarrier.init(scattered.index(place), 1)
    fence_async_shared()
    barrier()
    gl.warp_specialize(
        [
            (gather, (
                k_tiles, v_tiles, a_tiles, u, ones, loaded, emptied, scattered, partial, partial_degree, counters,
                scale, n, m, program, programs, parts,
                SPLITS, TILES, STAGES, PLACES, BLOCK_N, BLOCK_M, D, D_PAD, EVEN, PADDED,
            )),
            (scatter, (
                a_tiles, w, scattered, partial, partial_degree, means, degree, out, counters, counters + parts, m,
                program, programs, parts, heads, n, out_strides,
                SPLITS, SLICES, ROWS, TILES, PLACES, BLOCK_N, BLOCK_M, D, D_PAD,
            )),
            (produce, (
                k, v, k_tiles, v_tiles, loaded, emptied, program, programs, parts, heads, n, k_strides, v_strides,
                SPLITS, TILES, STAGES, BLOCK_N, D, D_PAD,
            )),
        ],
        [4, 1],
        [152, 24],
    )  # fmt: skip

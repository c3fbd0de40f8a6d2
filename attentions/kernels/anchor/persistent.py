"""The persistent schedule: one launch a pass; the second reading of K (and of G) finds it in L2.

Heads go through in groups small enough for L2. Work is cut into items, numbered in an order in which an item waits
only for items of lower number; programs take numbers from a counter ("tickets") until there are none. In step t:

    first half of group t's gather items · group t−1's reduce items · rest of group t's gather · group t−1's scatter

Why this cannot hang: take the unfinished item of lowest number that anyone holds. All it waits for has lower numbers;
those tickets were given out before, each to a program that was running when it took it and that works on nothing
else until it is done; so they are finished or can finish, and so can this one. It needs no co-residency (a program
that is not resident holds no ticket), unlike a grid barrier; the grid is still kept to what is co-resident, because
more programs would only queue. Run one after the other, as under the interpreter, the first program does all items
in order and never waits.

Why the data is there: a writer stores, then `debug_barrier` orders the stores of all its threads before the one
thread that performs the atomic with release semantics at GPU scope; a reader's one thread sees the count with
acquire semantics, and the broadcast of the atomic's result through shared memory is a barrier for its other threads.
What crosses programs is read through L2 (.cg), never from an L1 line that was there before.

What stays small: partial sums live in a ring of two groups, so that they never leave L2; a gather item waits until
the group that had its place has been reduced (those items come a step earlier). Likewise item i of every group adds
its dU to place i, after item i of the group before has.

Why it repeats bit for bit: who executes an item, and when, changes nothing in it; sums over splits have one order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from attentions.kernels.anchor.backward import differentiate
from attentions.kernels.anchor.memory import head_of, load_matrix, store_matrix
from attentions.kernels.anchor.sums import reduce_gradients, reduce_means
from attentions.kernels.anchor.whole import gather, scatter

GATHER = tl.constexpr(0)
REDUCE = tl.constexpr(1)
SCATTER = tl.constexpr(2)


@triton.jit
def arrive(counter):
    """Make this program's stores visible and count one finished item."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release", scope="gpu")


@triton.jit
def wait_for(counter, target):
    """Wait until `target` items have arrived."""
    while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < target:
        pass


@triton.jit
def item_of(ticket, group, splits, slices):
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
    k_strides, v_strides, out_strides,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr, WGMMA: tl.constexpr,
):  # fmt: skip
    """The whole forward pass. parts = b·h; slices · ROWS ≥ m; counters: 1 + 2·parts zeros; partial: 2·group·splits."""
    ut = tl.trans(load_matrix(anchors, 0, m, BLOCK_M, D, D_PAD).to(k.dtype.element_ty))
    rows = tl.arange(0, BLOCK_M)
    ticket = tl.atomic_add(counters, 1, sem="relaxed", scope="gpu")
    while ticket < tickets:
        kind, head, part = item_of(ticket, group, splits, slices)
        if (head >= 0) & (head < parts):
            gathered = counters + 1 + head
            reduced = counters + 1 + parts + head
            place = (head % (2 * group)).to(tl.int64)
            head_k = head_of(k, head, heads, k_strides)
            low = part * span
            high = tl.minimum(low + span, n)
            if kind == GATHER:
                if head >= 2 * group:
                    wait_for(reduced - 2 * group, slices)
                total, counted = gather(
                    head_k, head_of(v, head, heads, v_strides), k, ut, low, high, n, k_strides, v_strides, scale, 0, m,
                    BLOCK_N=BLOCK_N, BLOCK_M=BLOCK_M, D=D, D_PAD=D_PAD, EVEN=EVEN, PADDED=PADDED, BLOCKED=False,
                    DEGREE=True, PRECISION=PRECISION, WGMMA=WGMMA, KEEP="evict_last", KEEP_V="evict_first",
                )  # fmt: skip
                at = (place * splits + part) * m
                store_matrix(partial + at * D, total, 0, m, BLOCK_M, D, D_PAD)
                tl.store(partial_degree + at + rows, counted, mask=rows < m)
                arrive(gathered)
            elif kind == REDUCE:
                wait_for(gathered, splits)
                reduce_means(
                    partial, partial_degree, means, degree, place, head, splits, part * ROWS, m,
                    ROWS=ROWS, WIDE=WIDE, D=D, D_PAD=D_PAD,
                )  # fmt: skip
                arrive(reduced)
            else:
                wait_for(reduced, slices)
                w = load_matrix(means + head.to(tl.int64) * m * D, 0, m, BLOCK_M, D, D_PAD, CACHE=".cg")
                scatter(
                    head_k, head_of(out, head, heads, out_strides), ut, w.to(k.dtype.element_ty),
                    low, high, n, k_strides, out_strides, scale, m,
                    BLOCK_N=BLOCK_N, D=D, D_PAD=D_PAD, EVEN=EVEN, PADDED=PADDED, PRECISION=PRECISION,
                )  # fmt: skip
        ticket = tl.atomic_add(counters, 1, sem="relaxed", scope="gpu")


@triton.jit
def persistent_backward_kernel(
    k, v, g, anchors, means, degree, partial, grad_sums, grad_degree, grad_k, grad_v, grad_partial, counters,
    scale, root, n, m: tl.constexpr, heads, parts, group, splits, slices, span, tickets,
    k_strides, v_strides, g_strides, grad_k_strides, grad_v_strides,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr, WGMMA: tl.constexpr,
):  # fmt: skip
    """The backward pass up to the sum of the partial dU. counters: 1 + 2·parts + group·splits zeros; partial:
    2·group·splits, grad_partial: group·splits matrices."""
    dtype = k.dtype.element_ty
    u = load_matrix(anchors, 0, m, BLOCK_M, D, D_PAD).to(dtype)
    ut = tl.trans(u)
    rows = tl.arange(0, BLOCK_M)
    ticket = tl.atomic_add(counters, 1, sem="relaxed", scope="gpu")
    while ticket < tickets:
        kind, head, part = item_of(ticket, group, splits, slices)
        if (head >= 0) & (head < parts):
            gathered = counters + 1 + head
            reduced = counters + 1 + parts + head
            place = (head % (2 * group)).to(tl.int64)
            head_k = head_of(k, head, heads, k_strides)
            head_g = head_of(g, head, heads, g_strides)
            low = part * span
            high = tl.minimum(low + span, n)
            if kind == GATHER:
                if head >= 2 * group:
                    wait_for(reduced - 2 * group, slices)
                total, _ = gather(
                    head_k, head_g, k, ut, low, high, n, k_strides, g_strides, scale, 0, m,
                    BLOCK_N=BLOCK_N, BLOCK_M=BLOCK_M, D=D, D_PAD=D_PAD, EVEN=EVEN, PADDED=PADDED, BLOCKED=False,
                    DEGREE=False, PRECISION=PRECISION, WGMMA=WGMMA, KEEP="evict_last", KEEP_V="evict_last",
                )  # fmt: skip
                store_matrix(partial + (place * splits + part) * m * D, total, 0, m, BLOCK_M, D, D_PAD)
                arrive(gathered)
            elif kind == REDUCE:
                wait_for(gathered, splits)
                reduce_gradients(
                    partial, means, degree, grad_sums, grad_degree, place, head, splits, part * ROWS, m,
                    ROWS=ROWS, WIDE=WIDE, D=D, D_PAD=D_PAD,
                )  # fmt: skip
                arrive(reduced)
            else:
                wait_for(reduced, slices)
                head_m = head.to(tl.int64) * m
                w = load_matrix(means + head_m * D, 0, m, BLOCK_M, D, D_PAD)
                dm = load_matrix(grad_sums + head_m * D, 0, m, BLOCK_M, D, D_PAD, CACHE=".cg")
                dd = tl.load(grad_degree + head_m + rows, mask=rows < m, other=0.0, cache_modifier=".cg")
                du = differentiate(
                    head_k, head_of(v, head, heads, v_strides), head_g,
                    head_of(grad_k, head, heads, grad_k_strides),
                    head_of(grad_v, head, heads, grad_v_strides), u, ut, w.to(dtype), dm.to(dtype), dd,
                    low, high, n, k_strides, v_strides, g_strides, grad_k_strides, grad_v_strides, scale, root, m,
                    BLOCK_N=BLOCK_N, BLOCK_M=BLOCK_M, D=D, D_PAD=D_PAD, EVEN=EVEN, PADDED=PADDED, PRECISION=PRECISION,
                    WGMMA=WGMMA,
                )  # fmt: skip
                slot = (head % group) * splits + part
                added = counters + 1 + 2 * parts + slot
                at = slot.to(tl.int64) * m * D
                if head >= group:
                    wait_for(added, head // group)
                    du += load_matrix(grad_partial + at, 0, m, BLOCK_M, D, D_PAD, CACHE=".cg")
                store_matrix(grad_partial + at, du, 0, m, BLOCK_M, D, D_PAD)
                arrive(added)
        ticket = tl.atomic_add(counters, 1, sem="relaxed", scope="gpu")

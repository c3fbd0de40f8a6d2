"""One launch a pass for short sequences (n up to choices.MAX_SINGLE): a program takes a whole head.

Forward adds up AᵀV and Aᵀ1 with no partial sums and writes O in the same program; backward does so with G, K and V.
The second stage reads K (backward: K and G) again, which the head's own program has just put into L2: of device memory
each is read once. A kept on chip between the stages, all tokens in one tile, was 3 to 11 % quicker at n = 198 and gave
wrong values there on Triton 3.6 (right ones under the interpreter, and with 8 warps, which are slower).

dU is the one sum over heads: each program leaves its share, and `sums.anchor_gradient_kernel` adds them.
"""

from __future__ import annotations

import triton
import triton.language as tl

from attentions.kernels.anchor.algebra import mean_gradients_of, means_of
from attentions.kernels.anchor.backward import differentiate
from attentions.kernels.anchor.memory import anchors_of, head_of, load_matrix, store_matrix
from attentions.kernels.anchor.whole import gather, scatter


@triton.jit
def single_forward_kernel(
    k, v, anchors, means, degree, out, scale, n, m: tl.constexpr, heads, k_strides, v_strides, out_strides,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, WGMMA: tl.constexpr, PER_HEAD: tl.constexpr,
):  # fmt: skip
    """O, W and δ of one head."""
    head = tl.program_id(0)
    at = head.to(tl.int64) * m
    rows = tl.arange(0, BLOCK_M)
    k = head_of(k, head, heads, k_strides)
    v = head_of(v, head, heads, v_strides)
    out = head_of(out, head, heads, out_strides)
    anchors = anchors_of(anchors, head, heads, m, D, PER_HEAD)
    ut = tl.trans(load_matrix(anchors, 0, m, BLOCK_M, D, D_PAD).to(k.dtype.element_ty))
    total, counted = gather(
        k, v, k, ut, 0, n, n, k_strides, v_strides, scale, 0, m,
        BLOCK_N=BLOCK_N, BLOCK_M=BLOCK_M, D=D, D_PAD=D_PAD, EVEN=EVEN, PADDED=PADDED, BLOCKED=False, DEGREE=True,
        PRECISION=PRECISION, WGMMA=WGMMA, EVICT_V="evict_first",
    )  # fmt: skip
    w = means_of(total, counted)
    scatter(
        k, out, ut, w.to(k.dtype.element_ty), 0, n, n, k_strides, out_strides, scale, m,
        BLOCK_N=BLOCK_N, D=D, D_PAD=D_PAD, EVEN=EVEN, PADDED=PADDED, PRECISION=PRECISION,
    )  # fmt: skip
    store_matrix(means + at * D, w, 0, m, BLOCK_M, D, D_PAD)
    tl.store(degree + at + rows, counted, mask=rows < m)


@triton.jit
def single_backward_kernel(
    k, v, g, anchors, means, degree, grad_k, grad_v, grad_partial, scale, root, n, m: tl.constexpr, heads,
    k_strides, v_strides, g_strides, grad_k_strides, grad_v_strides,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, EVEN: tl.constexpr,
    PADDED: tl.constexpr, PRECISION: tl.constexpr, WGMMA: tl.constexpr, PER_HEAD: tl.constexpr,
):  # fmt: skip
    """dK, dV and the share of dU of one head."""
    head = tl.program_id(0)
    at = head.to(tl.int64) * m
    rows = tl.arange(0, BLOCK_M)
    k, g = head_of(k, head, heads, k_strides), head_of(g, head, heads, g_strides)
    v = head_of(v, head, heads, v_strides)
    grad_k, grad_v = head_of(grad_k, head, heads, grad_k_strides), head_of(grad_v, head, heads, grad_v_strides)
    anchors = anchors_of(anchors, head, heads, m, D, PER_HEAD)
    u = load_matrix(anchors, 0, m, BLOCK_M, D, D_PAD).to(k.dtype.element_ty)
    ut = tl.trans(u)
    w = load_matrix(means + at * D, 0, m, BLOCK_M, D, D_PAD)
    counted = tl.load(degree + at + rows, mask=rows < m, other=0.0)
    total, _ = gather(
        k, g, k, ut, 0, n, n, k_strides, g_strides, scale, 0, m,
        BLOCK_N=BLOCK_N, BLOCK_M=BLOCK_M, D=D, D_PAD=D_PAD, EVEN=EVEN, PADDED=PADDED, BLOCKED=False, DEGREE=False,
        PRECISION=PRECISION, WGMMA=WGMMA,
    )  # fmt: skip
    dm, dd = mean_gradients_of(total, w, counted)
    du = differentiate(
        k, v, g, grad_k, grad_v, u, ut, w.to(k.dtype.element_ty), dm.to(k.dtype.element_ty), dd, 0, n, n,
        k_strides, v_strides, g_strides, grad_k_strides, grad_v_strides, scale, root, m,
        BLOCK_N=BLOCK_N, BLOCK_M=BLOCK_M, D=D, D_PAD=D_PAD, EVEN=EVEN, PADDED=PADDED, PRECISION=PRECISION,
        WGMMA=WGMMA,
    )  # fmt: skip
    store_matrix(grad_partial + at * D, du, 0, m, BLOCK_M, D, D_PAD)

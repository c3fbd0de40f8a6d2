"""The arithmetic that the passes share: products, logits, softmax, the means and their gradients.

Logits, softmax, degrees and all sums are float32; A and dS are rounded to the inputs' dtype for the tensor cores. m is
padded to a block with anchors of logit −inf.
"""

from __future__ import annotations

import triton
import triton.language as tl

# A degree below this counts as zero: its anchor's weight on any token is below it too, so the term it would add to any
# output or gradient vanishes in float32, while 1/δ would approach overflow.
SMALLEST_DEGREE = tl.constexpr(1e-30)


@triton.jit
def dot(a, b, PRECISION: tl.constexpr):
    """a · b in float32. "interpreted": operands widened first, as the interpreter multiplies bfloat16 as integers."""
    if PRECISION == "interpreted":
        product = tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:
        product = tl.dot(a, b, input_precision=PRECISION)
    return product


@triton.jit
def add_dot(a, b, total, PRECISION: tl.constexpr):
    """total + a · b in float32."""
    if PRECISION == "interpreted":
        result = tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision="ieee")
    else:
        result = tl.dot(a, b, total, input_precision=PRECISION)
    return result


@triton.jit
def logits(k, ut, first, m, PADDED: tl.constexpr, PRECISION: tl.constexpr):
    """k · u before scaling, (tokens, anchors) in float32; −inf for anchors beyond m. ut: the anchors transposed."""
    s = dot(k, ut, PRECISION)
    if PADDED:
        anchors = first + tl.arange(0, ut.shape[1])
        s = tl.where((anchors < m)[None, :], s, float("-inf"))
    return s


@triton.jit
def softmax(s, scale, start, n, MASKED: tl.constexpr):
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
def means_of(total, degree):
    """W = Δ⁻¹ M; zero where the degree is."""
    alive = degree > SMALLEST_DEGREE
    return tl.where(alive[:, None], total / tl.where(alive, degree, 1.0)[:, None], 0.0)


@triton.jit
def mean_gradients_of(total, means, degree):
    """dM = Δ⁻¹ dW and dδ = −Δ⁻¹ Σ_c dW ∘ W; zero where the degree is."""
    alive = degree > SMALLEST_DEGREE
    inverse = tl.where(alive, 1.0 / tl.where(alive, degree, 1.0), 0.0)
    return total * inverse[:, None], -inverse * tl.sum(total * means, 1)


@triton.jit
def weight_gradients(tile_v, tile_g, wt, dmt, dd, PRECISION: tl.constexpr):
    """dA of a tile of tokens and a block of anchors; wt, dmt: transposed."""
    da = dot(tile_g, wt, PRECISION)
    return add_dot(tile_v, dmt, da, PRECISION) + dd[None, :]

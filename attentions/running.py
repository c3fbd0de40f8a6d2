"""Running sums over the tokens, in chunks: what the causal forms of linear attentions are made of.

out = running_products(q, k, v)                      # out_i = Σ_{j ≤ i} (q_i · k_j) v_j
out = running_shares(a, back, v)                     # out_i = Σ_{j ≤ i} (Σ_f back_if a_jf / Σ_{t ≤ i} a_tf) v_j
out = running_softmaxes(a, z, v)                     # of weights Σ_f exp(a_if + z_jf), over their sum

A chunk of c tokens takes what came before it from one (m, e) state, and its own tokens from c × c products under a
triangular mask: linear in n, n/c · m · e of states in memory, and no loop over tokens.
Source of the chunked form: Yang et al. 2024, arXiv 2312.06635, section 2.2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from attentions.base import Work
from attentions.eager import blocks_apart, blocks_together, filled

CHUNK = 64  # tokens: the products inside a chunk are about as large as those with the state where m and e are 64


def running_products(
    q: Float[Tensor, "b h n m"], k: Float[Tensor, "b g n m"], v: Float[Tensor, "b g n e"]
) -> Float[Tensor, "b h n e"]:
    """Σ_{j ≤ i} (q_i · k_j) v_j in v's dtype, which is to be float32 or wider: the sums run over all tokens.

    h is a multiple of g: so many heads of q share one of k and v.

    Cost: b·n·(2·(g + h)·m·e + 2·h·c·(m + e)) FLOPs, n in whole chunks of c; b·g·n/c·m·e elements of states.
    """
    c = chunk(q.shape[-2])
    queries = blocks_together(q, k, c)  # (b, g, chunks, r·c, m)
    keys, values = blocks_together(k, k, c), blocks_together(v, v, c)
    before = _exclusive(keys.transpose(-2, -1) @ values)
    out = queries @ before + _causal_within(queries @ keys.transpose(-2, -1)) @ values
    return blocks_apart(out, q)


def running_shares(
    a: Float[Tensor, "b h n m"], back: Float[Tensor, "b h n m"], v: Float[Tensor, "b h n e"]
) -> Float[Tensor, "b h n e"]:
    """Each token reads the m places as the tokens up to it have filled them: a fills; back reads, a itself or another.

    In at least float32; a place that nothing has filled is read as zero. Cost: that of running_products.
    """
    wide = torch.promote_types(a.dtype, torch.float32)
    filling = a.to(wide)
    return running_products(_shares(filling, filling if back is a else back.to(wide)), filling, v.to(wide)).to(v.dtype)


def _shares(a: Float[Tensor, "b h n m"], back: Float[Tensor, "b h n m"]) -> Float[Tensor, "b h n m"]:
    """What each token reads of a place, over the place's degree up to the token; zero where that is."""
    degree = a.cumsum(dim=-2)
    empty = degree <= 0
    degree.add_(empty)  # masked afterwards alone, a quotient by zero would have a gradient that is no number
    return torch.where(empty, 0, _Quotient.apply(back, degree))


class _Quotient(torch.autograd.Function):
    """back / degree. PyTorch's own gradient has (back / degree) / degree in it before what comes from above, which is
    small where a degree is: from 1e-19 on that overflows float32, where `back` is another's."""

    generate_vmap_rule = True

    @staticmethod
    def forward(back: Tensor, degree: Tensor) -> Tensor:
        """Elementwise."""
        return back / degree

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keeps what the gradients are made of."""
        ctx.save_for_backward(output, inputs[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        """Of both."""
        quotient, degree = ctx.saved_tensors
        of_back = grads[0] / degree
        return of_back, -of_back * quotient


def running_softmaxes(
    a: Float[Tensor, "b h n m"], z: Float[Tensor, "b g n m"], v: Float[Tensor, "b g n e"]
) -> Float[Tensor, "b h n e"]:
    """Σ_{j ≤ i} Σ_f exp(a_if + z_jf) v_j over Σ_{j ≤ i} Σ_f exp(a_if + z_jf), for logits of any size; v in their dtype.

    With l_if the running log-sum-exp of z and w_i = softmax_f(a_if + l_if), token i weighs token j by
    Σ_f w_if exp(z_jf − l_if) = Σ_f (w_if exp(l_tf − l_if)) · exp(z_jf − l_tf) for any token t from j to i − 1. No
    exponent is positive, since l grows: nothing overflows, and no later token has a say. Tokens of earlier chunks are
    met with t the end of the chunk before i's, through one state a chunk; those of one chunk in its halves, quarters, …
    with t the end of the first of two neighbours.

    Cost: b·n·(2·(g + h)·m·e + h·(c − 1)·(m + e)) FLOPs, n in whole chunks of c.
    """
    n, h, g, c = a.shape[-2], a.shape[1], z.shape[1], power_chunk(a.shape[-2])
    z, v = filled(z, c, value=-math.inf).unsqueeze(2), filled(v, c).unsqueeze(2)  # (b, g, 1, n, ·)
    a = filled(a, c).unflatten(1, (g, h // g))  # (b, g, r, n, m)
    mass = torch.logcumsumexp(z, dim=-2)
    weights = torch.softmax(a + mass, dim=-1)
    out = (weights * torch.exp(z - mass)).sum(dim=-1, keepdim=True) * v  # of a token itself
    if weights.shape[-2] > c:
        out = out + _of_earlier_chunks(weights, z, mass, v, c)
    half = c // 2
    while half:
        out = out + _of_first_halves(weights, z, mass, v, half)
        half //= 2
    return out[..., :n, :].flatten(1, 2)


def _of_earlier_chunks(weights: Tensor, z: Tensor, mass: Tensor, v: Tensor, c: int) -> Float[Tensor, "b g r n e"]:
    """What each token has of the chunks before its own; each state is held relative to the mass at its chunk's end."""
    weights, z, mass, v = (x.unflatten(-2, (x.shape[-2] // c, c)) for x in (weights, z, mass, v))
    ends = mass[..., -1:, :]  # (b, g, 1, chunks, 1, m)
    past = torch.cat((torch.full_like(ends[:, :, :, :1], -math.inf), ends[:, :, :, :-1]), dim=3)
    added = torch.exp(z - ends).transpose(-2, -1) @ v  # (b, g, 1, chunks, m, e)
    kept = torch.exp(past - ends).transpose(-2, -1)
    states = [torch.zeros_like(added[:, :, :, 0])]
    for chunk_added, chunk_kept in zip(added.unbind(3)[:-1], kept.unbind(3)[:-1], strict=True):
        states.append(states[-1] * chunk_kept + chunk_added)
    return (weights * torch.exp(past - mass) @ torch.stack(states, dim=3)).flatten(3, 4)


def _of_first_halves(weights: Tensor, z: Tensor, mass: Tensor, v: Tensor, half: int) -> Float[Tensor, "b g r n e"]:
    """What the tokens of every second run of `half` tokens have of the run before theirs; zero for the others."""
    weights, z, mass, v = (x.unflatten(-2, (x.shape[-2] // (2 * half), 2, half)) for x in (weights, z, mass, v))
    end = mass[..., 0, -1:, :]
    read = weights[..., 1, :, :] * torch.exp(end - mass[..., 1, :, :])
    held = torch.exp(z[..., 0, :, :] - end)
    return F.pad(read @ held.transpose(-2, -1) @ v[..., 0, :, :], (0, 0, half, 0)).flatten(3, 4)


def power_chunk(n: int) -> int:
    """Tokens of a chunk of running_softmaxes: a power of two."""
    return min(CHUNK, 1 << (n - 1).bit_length())


def chunk(n: int) -> int:
    """Tokens of a chunk."""
    return min(CHUNK, n)


def _exclusive(states: Float[Tensor, "b g c m e"]) -> Float[Tensor, "b g c m e"]:
    """Of each chunk, the sum of the states before it; the first has none."""
    sums = states.cumsum(dim=2)
    return torch.cat((torch.zeros_like(sums[:, :, :1]), sums[:, :, :-1]), dim=2)


def _causal_within(scores: Float[Tensor, "*batch rc c"]) -> Float[Tensor, "*batch rc c"]:
    """Zero in the place of every key after the query; rc is a multiple of c, head below head."""
    c = scores.shape[-1]
    return scores.unflatten(-2, (scores.shape[-2] // c, c)).tril().flatten(-3, -2)


def whole(n: int, c: int) -> int:
    """n in whole chunks of c."""
    return -(-n // c) * c


def products_flops(work: Work, *, m: int, e: int) -> int:
    """FLOPs of a forward pass of running_products."""
    c = chunk(work.n)
    return work.b * whole(work.n, c) * (2 * (work.key_heads + work.h) * m * e + 2 * work.h * c * (m + e))


def products_peak(work: Work, *, m: int, e: int) -> int:
    """Elements that running_products holds beside its inputs, its result among them; beyond forward, its gradients'.

    Forward: three times the states, or the scores twice. Backward: states and scores are kept, and the scores'
    gradients meet them.
    """
    c = chunk(work.n)
    n = whole(work.n, c)
    states = work.b * work.key_heads * (n // c) * m * e
    scores, out, values = work.b * work.h * n * c, work.b * work.h * n * e, work.b * work.key_heads * n * e
    copies = work.b * n * (work.h * m + work.key_heads * (m + e)) if n != work.n else 0
    if work.kv_heads is not None:
        copies += work.b * work.h * n * m
    if work.phase == "forward":
        return copies + max(3 * states, states + out + max(2 * scores, out + scores, 2 * out))
    gradients = work.b * n * (work.h + work.key_heads) * m + values
    return copies + max(states + 2 * scores + values, gradients + 3 * states)


def shares_peak(work: Work, *, m: int, e: int) -> int:
    """Bytes of running_shares and of what is filled and read; backward the degrees, where they are zero, the output."""
    weights, tensor, wide = work.tokens * m, work.tokens * e, max(work.itemsize, 4)
    sums = products_peak(work, m=m, e=e)
    if work.phase == "forward":
        return (2 * weights + sums) * wide
    return (3 * weights + tensor + max(sums, 5 * weights)) * wide + weights


def softmaxes_flops(work: Work, *, m: int, e: int) -> int:
    """FLOPs of a forward pass of running_softmaxes."""
    c = power_chunk(work.n)
    n = whole(work.n, c)
    states = 2 * (work.key_heads + work.h) * m * e if n > c else 0
    return work.b * n * (states + work.h * (c - 1) * (m + e))


def softmaxes_peak(work: Work, *, m: int, e: int) -> int:
    """Elements of running_softmaxes and its logits, the result among them; beyond forward, what autograd keeps too.

    Forward: a, z, the masses, the weights and their products; states, as a list and as a tensor. Backward: each halving
    of a chunk keeps the exponentials of half its tokens and their products with the weights. How many of each are alive
    together was counted with the allocator (tests/attentions/test_problem_cost.py).
    """
    c, groups = power_chunk(work.n), work.h // work.key_heads
    n = whole(work.n, c)
    queries, keys, out = (work.b * n * x for x in (work.h * m, work.key_heads * m, work.h * e))
    states = work.b * work.key_heads * (n // c) * m * e
    copies = queries + keys if n != work.n else 0
    if work.phase == "forward":
        repeated = states * groups if groups > 1 else 0
        return copies + max(3 * (queries + keys + states) + 2 * out + repeated, 2 * queries + 3 * keys + 3 * out)
    scores = work.b * work.h * n * c // 2
    return copies + 9 * queries + 11 * keys + (4 if groups == 1 else 6) * out + (1 + groups) * states + scores

"""Sliding-window attention: softmax attention in which a token sees `reach` tokens to each side.

    o_i = Σ_j softmax_j(q_i · k_j / √d) v_j  over  |i − j| ≤ reach

A token in the middle sees 2·reach + 1 tokens, itself among them; with reach ≥ n − 1 all see all: full attention.
Causal: over i − reach ≤ j ≤ i. Inside the window nothing is approximated, beyond it nothing is seen: against `full` it
is another function.

Source: Beltagy et al. 2020, arXiv 2004.05150, section 3.1, without dilation and global tokens; its w is 2·reach.
Backend `flex`: Dong et al. 2024, arXiv 2412.05496.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from attentions import flex as compiled_flex
from attentions.base import Backend, Cost, Exponents, Option, Spec, Work, matmuls, traffic
from attentions.eager import blocks_apart, blocks_together, heads_apart, heads_together, softmax, softmax_weights
from attentions.flex import TILE


def reference(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g n d"],
    v: Float[Tensor, "b g n d"],
    *,
    reach: int,
    causal: bool = False,
) -> Float[Tensor, "b h n d"]:
    """Masked softmax attention by blocks of `reach` queries, each against its own block of keys and both neighbours.

    What lies outside those three blocks is outside the window, so nothing is left out and no n × n matrix is formed;
    causal: outside its own block and the one before. Softmaxes are taken in at least float32.

    Cost: 12·b·h·n·reach·d FLOPs, 6·b·h·n·reach elements, n in whole blocks; those of `full` where reach ≥ n − 1; two
    thirds of them causal.
    Source: Beltagy et al. 2020, arXiv 2004.05150, section 3.1.
    """
    n, d = q.shape[-2:]
    if reach >= n - 1:
        return heads_apart(softmax_weights(heads_together(q, k), k, causal=causal) @ v, q)
    values = _neighbourhoods(v, reach, causal=causal)
    weights = _weights(blocks_together(q / math.sqrt(d), k, reach), k, n=n, reach=reach, causal=causal)
    return blocks_apart(weights @ values.transpose(-2, -1), q)


def _weights(
    queries: Float[Tensor, "b g blocks rows d"], k: Float[Tensor, "b g n d"], *, n: int, reach: int, causal: bool
) -> Float[Tensor, "b g blocks rows wide"]:
    """The softmax of each block's queries over the keys that they see; rows are r heads of `reach` queries."""
    scores = queries @ _neighbourhoods(k, reach, causal=causal)
    far, nowhere = _hidden(n, reach, k.device, causal=causal)
    if queries.shape[-2] != reach:
        far = far.repeat(queries.shape[-2] // reach, 1)
    scores.masked_fill_(far, -math.inf).masked_fill_(nowhere, -math.inf)
    return softmax(scores)


def _neighbourhoods(x: Float[Tensor, "b g n d"], reach: int, *, causal: bool) -> Float[Tensor, "b g blocks d wide"]:
    """Each block of `reach` tokens with both of its neighbours, or causal with the one before, zeros beyond the ends; a
    view of one padded copy."""
    after = 0 if causal else reach
    return F.pad(x, (0, 0, reach, after + -x.shape[-2] % reach)).unfold(-2, 2 * reach + after, reach)


def _hidden(n: int, reach: int, device: torch.device, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Of a block's blocks of keys, those that a query does not reach (reach, wide), and those that are before the first
    token or after the last (blocks, 1, wide). A query that pads the last block still sees a token.
    """
    key = torch.arange(-reach, reach if causal else 2 * reach, device=device)
    ahead = key - torch.arange(reach, device=device).unsqueeze(-1)
    far = (ahead < -reach) | (ahead > 0) if causal else ahead.abs() > reach
    place = key + torch.arange(0, n, reach, device=device)[:, None, None]
    return far, (place < 0) | (place >= n)


def flex(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b g n d"],
    v: Float[Tensor, "b g n d"],
    *,
    reach: int,
    causal: bool = False,
) -> Float[Tensor, "b h n d"]:
    """FlexAttention over the tiles that the window meets."""
    return compiled_flex.attend(q, k, v, block_mask=_block_mask(q.shape[-2], reach, q.device, causal=causal))


@lru_cache(maxsize=64)
def _block_mask(n: int, reach: int, device: torch.device, *, causal: bool = False) -> Any:
    """The tiles that hold a pair of the window; PyTorch's own builder would form all n × n pairs to find them."""
    from torch.nn.attention.flex_attention import BlockMask

    rows, near = _tiles(n, reach)
    row = torch.arange(rows, device=device)

    def around(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query - key).abs() <= reach

    def before(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query - key <= reach)

    first, last = (row - near).clamp(min=0), row if causal else (row + near).clamp(max=rows - 1)
    columns = (first.unsqueeze(-1) + row).clamp(max=rows - 1)  # only the first `count` of a row are read
    counts = last - first + 1
    return BlockMask.from_kv_blocks(
        counts[None, None].to(torch.int32), columns[None, None].to(torch.int32), BLOCK_SIZE=TILE,
        mask_mod=before if causal else around, seq_lengths=(n, n),
    )  # fmt: skip


def _tiles(n: int, reach: int) -> tuple[int, int]:
    """How many tiles the tokens fill, and how many to each side of its own the window of a tile's queries meets."""
    rows = -(-n // TILE)
    return rows, min(-(-reach // TILE), rows - 1)


def cost(work: Work) -> Cost:
    """FLOPs of the pairs in the window; peak of the reference."""
    reach = min(work.options["reach"], work.n - 1)
    sides = 1 if work.causal else 2
    pairs = work.n * (sides * reach + 1) - sides * reach * (reach + 1) // 2
    return Cost(flops=matmuls(work, 4 * work.b * work.h * pairs * work.d), bytes=traffic(work), peak=_peak(work, reach))


def _peak(work: Work, reach: int) -> int:
    """Scores and weights, backward weights and two gradients; beside them padded keys and values and copies of them.

    Where the window is narrow, the copies of three blocks for each (causal two) that a product makes are more than its
    scores.
    """
    tensor, keys, forward = work.tokens * work.d, work.keys * work.d, work.phase == "forward"
    if reach == work.n - 1:
        scores, mask = work.tokens * work.n, work.n**2 if work.causal else 0
        elements = 2 * scores + tensor if forward else 3 * scores + tensor + 2 * keys
        return elements * work.itemsize + mask
    blocks, wide = -(-work.n // reach), 2 if work.causal else 3
    scores = work.b * work.h * blocks * wide * reach * reach
    ends = 2 * work.b * work.key_heads * ((blocks + wide - 1) * reach - work.n) * work.d
    if forward:
        own = 2 * tensor + keys if work.kv_heads else 0  # the output with each head by itself is a copy
        elements = max(2 * scores + tensor + keys, scores + max(tensor + (2 + wide) * keys, own))
        return (elements + ends) * work.itemsize
    copies = 3 * wide if work.b * work.key_heads > 1 else 2 * wide
    elements = max(3 * scores + 2 * tensor + 2 * wide * keys, 2 * scores + 3 * tensor + copies * keys)
    return (elements + ends) * work.itemsize


def _reference_flops(work: Work) -> int:
    """Whole blocks of queries, each with three blocks of keys, or causal with two."""
    reach, wide = work.options["reach"], 2 if work.causal else 3
    pairs = -(-work.n // reach) * wide * reach * reach if reach < work.n - 1 else work.n**2
    return matmuls(work, 4 * work.b * work.h * pairs * work.d)


def _flex_flops(work: Work) -> int:
    """Whole tiles; a backward pass computes the scores a second time."""
    rows, near = _tiles(work.n, work.options["reach"])
    sides = 1 if work.causal else 2
    tiles = rows * (sides * near + 1) - sides * near * (near + 1) // 2
    return matmuls(work, 4 * work.b * work.h * tiles * TILE**2 * work.d, backward=2.5)


def _note(work: Work) -> str:
    reach = work.options["reach"]
    return "" if reach < work.n - 1 else f"full attention: a reach of {reach} holds all {work.n} tokens"


SPEC = Spec(
    name="window",
    title="Sliding-window attention",
    paper="Beltagy et al. 2020, arXiv 2004.05150, section 3.1",
    options=(Option("reach", 128, "tokens that a token sees to each side", minimum=1),),
    rank=lambda work, dtype, device: ("flex", "reference") if device.type == "cuda" else ("reference",),
    backends=(
        Backend(
            "flex", flex, "FlexAttention through torch.compile, over the tiles that the window meets",
            missing=compiled_flex.missing, limits=compiled_flex.limits, flops=_flex_flops, peak=compiled_flex.peak,
            opaque=True,
        ),
        Backend("reference", reference, "eager PyTorch: blocks of queries with three of keys", flops=_reference_flops),
    ),
    model=cost,
    exponents=Exponents(flops_n=1, flops_m=0, peak_n=1, peak_m=0),
    problems=("causal", "kv_heads"),
    refuses={"kv_tokens": "window counts places in one sequence, and a query has no place among another's keys"},
    note=_note,
)  # fmt: skip

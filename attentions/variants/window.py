"""Sliding-window attention: softmax attention in which a token sees `reach` tokens to each side.

    o_i = Σ_j softmax_j(q_i · k_j / √d) v_j  over  |i − j| ≤ reach

A token in the middle sees 2·reach + 1 tokens, itself among them; with reach ≥ n − 1 all see all: full attention.
Inside the window nothing is approximated, beyond it nothing is seen: against `full` it is another function.

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
from attentions.eager import softmax, softmax_weights

TILE = 128  # queries and keys of a block of FlexAttention: it skips blocks that lie outside the window


def reference(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"], *, reach: int
) -> Float[Tensor, "b h n d"]:
    """Masked softmax attention by blocks of `reach` queries, each against its own block of keys and both neighbours.

    What lies outside those three blocks is outside the window, so nothing is left out and no n × n matrix is formed.
    Softmaxes are taken in at least float32.

    Cost: 12·b·h·n·reach·d FLOPs, 6·b·h·n·reach elements, n in whole blocks; those of `full` where reach ≥ n − 1.
    Source: Beltagy et al. 2020, arXiv 2004.05150, section 3.1.
    """
    n, d = q.shape[-2:]
    if reach >= n - 1:
        return softmax_weights(q, k) @ v
    values = _neighbourhoods(v, reach)
    out = _weights(q / math.sqrt(d), _neighbourhoods(k, reach), n=n, reach=reach) @ values.transpose(-2, -1)
    return out.flatten(2, 3)[..., :n, :]


def _neighbourhoods(x: Float[Tensor, "b h n d"], reach: int) -> Float[Tensor, "b h blocks d wide"]:
    """Each block of `reach` tokens with both of its neighbours, zeros beyond the ends; a view of one padded copy."""
    return F.pad(x, (0, 0, reach, reach + -x.shape[-2] % reach)).unfold(-2, 3 * reach, reach)


def _weights(
    q: Float[Tensor, "b h n d"], keys: Float[Tensor, "b h blocks d wide"], *, n: int, reach: int
) -> Float[Tensor, "b h blocks reach wide"]:
    """The softmax of each block's queries over the keys that they see."""
    queries = F.pad(q, (0, 0, 0, -n % reach)).unflatten(-2, (-1, reach))
    scores = queries @ keys
    for hidden in _hidden(n, reach, q.device):
        scores.masked_fill_(hidden, -math.inf)
    return softmax(scores)


def _hidden(n: int, reach: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of a block's three blocks of keys, those that a query does not reach (reach, 3·reach), and those that are before
    the first token or after the last (blocks, 1, 3·reach). A query that pads the last block still sees token n − 1.
    """
    key = torch.arange(-reach, 2 * reach, device=device)
    far = (key - torch.arange(reach, device=device).unsqueeze(-1)).abs() > reach
    place = key + torch.arange(0, n, reach, device=device)[:, None, None]
    return far, (place < 0) | (place >= n)


def flex(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"], *, reach: int
) -> Float[Tensor, "b h n d"]:
    """FlexAttention over the tiles that the window meets."""
    return compiled_flex.attend(q, k, v, block_mask=_block_mask(q.shape[-2], reach, q.device))


@lru_cache(maxsize=64)
def _block_mask(n: int, reach: int, device: torch.device) -> Any:
    """The tiles that hold a pair of the window; PyTorch's own builder would form all n × n pairs to find them."""
    from torch.nn.attention.flex_attention import BlockMask

    rows, near = _tiles(n, reach)
    row = torch.arange(rows, device=device)
    first, last = (row - near).clamp(min=0), (row + near).clamp(max=rows - 1)
    columns = (first.unsqueeze(-1) + row).clamp(max=rows - 1)  # only the first `count` of a row are read
    counts = last - first + 1
    return BlockMask.from_kv_blocks(
        counts[None, None].to(torch.int32), columns[None, None].to(torch.int32), BLOCK_SIZE=TILE,
        mask_mod=lambda b, h, query, key: (query - key).abs() <= reach, seq_lengths=(n, n),
    )  # fmt: skip


def _tiles(n: int, reach: int) -> tuple[int, int]:
    """How many tiles the tokens fill, and how many to each side of its own the window of a tile's queries meets."""
    rows = -(-n // TILE)
    return rows, min(-(-reach // TILE), rows - 1)


def cost(work: Work) -> Cost:
    """FLOPs of the pairs in the window; peak of the reference."""
    reach = min(work.options["reach"], work.n - 1)
    pairs = work.n * (2 * reach + 1) - reach * (reach + 1)
    return Cost(flops=matmuls(work, 4 * work.b * work.h * pairs * work.d), bytes=traffic(work), peak=_peak(work, reach))


def _peak(work: Work, reach: int) -> int:
    """Scores and weights, backward weights and two gradients; beside them padded keys and values and copies of them.

    Where the window is narrow, the copies of three blocks for each that a product makes are more than its scores.
    """
    tensor, forward = work.tokens * work.d * work.itemsize, work.phase == "forward"
    if reach == work.n - 1:
        scores, beside, copies = work.tokens * work.n, tensor if forward else 3 * tensor, 0
    else:
        blocks = -(-work.n // reach)
        scores = work.b * work.h * blocks * 3 * reach * reach
        ends = 2 * work.b * work.h * ((blocks + 2) * reach - work.n) * work.d * work.itemsize
        beside = (4 if forward else 8) * tensor + ends
        uneven = tensor if work.n % reach else 0
        products = ((1, 7),) if forward else ((1, 12), (2, 11))
        copies = max(x * scores * work.itemsize + y * tensor for x, y in products) + uneven + ends
    return max((2 if forward else 3) * scores * work.itemsize + beside, copies)


def _reference_flops(work: Work) -> int:
    """Whole blocks of queries, each with three blocks of keys."""
    reach = work.options["reach"]
    pairs = -(-work.n // reach) * 3 * reach * reach if reach < work.n - 1 else work.n**2
    return matmuls(work, 4 * work.b * work.h * pairs * work.d)


def _flex_flops(work: Work) -> int:
    """Whole tiles; a backward pass computes the scores a second time."""
    rows, near = _tiles(work.n, work.options["reach"])
    tiles = rows * (2 * near + 1) - near * (near + 1)
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
    note=_note,
)  # fmt: skip

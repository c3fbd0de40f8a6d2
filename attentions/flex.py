"""FlexAttention as backends use it: compiled, never run eagerly, and honest about where it cannot run.

out = attend(q, k, v)                                # softmax attention; with block_mask=… of what the mask keeps
out = attend(q, k, v, block_mask=causal(n, device))
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from attentions.base import Work

TILE = 128  # queries and keys of a block of FlexAttention: it skips blocks that a mask leaves empty


def attend(q: Tensor, k: Tensor, v: Tensor, *, block_mask: Any = None) -> Tensor:
    """(b, h, n, d), and k and v (b, g, j, d), → (b, h, n, d), compiled for each shape.

    Dynamo's limit of compilations is lifted, past which it would run eagerly and form n × n scores.
    """
    if not q.shape[0]:  # FlexAttention has no empty grid
        return q + 0 * (k.sum() + v.sum())
    import torch._dynamo

    if not torch.is_grad_enabled():  # on a CPU it refuses inputs that require gradients even where none are recorded
        q, k, v = q.detach(), k.detach(), v.detach()
    grouped = {"enable_gqa": True} if q.shape[1] != k.shape[1] else {}
    with torch._dynamo.config.patch(recompile_limit=1024, accumulated_recompile_limit=4096):
        return _compiled()(q, k, v, block_mask=block_mask, **grouped)


@cache
def _compiled() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention  # takes a second to import

    return torch.compile(flex_attention, dynamic=False, fullgraph=True)


@lru_cache(maxsize=64)
def causal(n: int, device: torch.device) -> Any:
    """The block mask of keys ≤ query: the tiles before a row's own whole, its own in part."""
    from torch.nn.attention.flex_attention import BlockMask

    rows = -(-n // TILE)
    row = torch.arange(rows, device=device, dtype=torch.int32)
    columns = row.expand(rows, rows)
    return BlockMask.from_kv_blocks(
        torch.ones_like(row)[None, None], columns.T.contiguous()[None, None], row[None, None],
        columns.contiguous()[None, None], BLOCK_SIZE=TILE, seq_lengths=(n, n),
        mask_mod=lambda b, h, query, key: query >= key,
    )  # fmt: skip


def missing(device: torch.device) -> str | None:
    """What its compiler needs; not a trial, which would cost ten seconds in every list of backends."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "needs the package triton, which is not installed: pip install triton"
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        return "needs a C++ compiler for torch.compile on the CPU and none is on PATH; install g++"
    return None


def limits(work: Work, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why it cannot run one case, or None."""
    if dtype == torch.float64:
        return "computes in float16, bfloat16 or float32, not in float64"
    if device.type == "cpu" and work.phase != "forward":
        return f"has no backward pass on a CPU (phase {work.phase})"
    if device.type == "cuda" and work.d < 16:
        return f"takes a head_dim of at least 16 on a GPU, not {work.d}"
    return None


def peak(work: Work) -> int:
    """What it keeps: the output and a float32 log-sum-exp; backward adds three gradients and a sum."""
    tensor, keys, row = work.tokens * work.d * work.itemsize, work.keys * work.d * work.itemsize, 4 * work.tokens
    return tensor + row if work.phase == "forward" else 2 * (tensor + keys + row)

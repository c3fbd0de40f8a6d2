"""Fused softmax attention: exact, by the ring; each block of keys by PyTorch's flash kernel of the device."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import AttentionError
from attentions.parallel import ring
from attentions.parallel.ranks import Ranks
from attentions.parallel.ring import volume

__all__ = ["attend", "volume"]


def attend(
    core: nn.Module,
    ranks: Ranks,
    q: Float[Tensor, "b h part d"],
    k: Float[Tensor, "b h part d"],
    v: Float[Tensor, "b h part d"],
) -> Float[Tensor, "b h part d"]:
    """softmax(q kᵀ / √d) v of this rank's queries over the keys of all ranks.

    On a GPU in float16 or bfloat16 with a head_dim that is a multiple of 8. Raises AttentionError for others.
    """
    if q.device.type == "cpu":
        block = ring.Block(_cpu, _cpu_backward)
    elif q.device.type == "cuda" and q.dtype in (torch.float16, torch.bfloat16) and not q.shape[-1] % 8:
        block = ring.Block(_cuda, _cuda_backward)
    else:
        raise AttentionError(
            f"flash over several ranks computes on a CPU, or on a GPU in float16 or bfloat16 with a head_dim that is a "
            f"multiple of 8, not on {q.device.type} in {str(q.dtype).removeprefix('torch.')} with {q.shape[-1]}; "
            "full takes any of them"
        )
    return ring.attend(q, k, v, ranks, ranks.sizes(k), block)


# The public call does not give the log-sum-exp that blocks are merged by; these are the operators behind it.
def _cpu(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    return out, lse.to(torch.promote_types(q.dtype, torch.float32))


def _cpu_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(grad, q, k, v, out, lse, 0.0, False)


def _cuda(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)
    return out, lse


def _cuda_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    unused = torch.empty(2, dtype=torch.uint64, device=q.device)  # the state of dropout, which is off
    return torch.ops.aten._scaled_dot_product_flash_attention_backward(
        grad, q, k, v, out, lse.contiguous(), None, None, q.shape[-2], k.shape[-2], 0.0, False, unused, unused[0]
    )

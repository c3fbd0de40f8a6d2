"""An attention with timm's parts, and models of it, for the tests of swapping."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DIM, HEADS, N = 48, 3, 21


class Attend(nn.Module):
    """What timm's Attention is, by structure: qkv, proj, num_heads, a scale, and the call with masks."""

    def __init__(self, *, bias: bool = True, drop: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.scale = HEADS, (DIM // HEADS) ** -0.5
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM, bias=bias), nn.Linear(DIM, DIM, bias=bias)
        self.attn_drop, self.proj_drop = nn.Dropout(drop), nn.Dropout(drop)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        weights = self.attn_drop(torch.softmax(self.scale * q @ k.mT, dim=-1))
        return self.proj_drop(self.proj((weights @ v).transpose(1, 2).flatten(2)))


def tree(**attend: object) -> nn.Sequential:
    """Two blocks of an attention and a linear layer."""
    torch.manual_seed(0)
    blocks = [nn.ModuleDict({"attn": Attend(**attend), "mlp": nn.Linear(DIM, DIM)}) for _ in range(2)]  # type: ignore[arg-type]
    return nn.Sequential(*blocks)


def through(model: nn.Sequential, x: Tensor) -> Tensor:
    for block in model:
        x = x + block["attn"](x)  # type: ignore[index]
        x = x + block["mlp"](x)  # type: ignore[index]
    return x


def tokens() -> Tensor:
    return torch.randn(2, N, DIM, generator=torch.Generator().manual_seed(1))

"""A network that maps what is known at n points to a solution there, with any attention: a small neural operator.

    model = OperatorModel(features=1, attention="anchor", anchors=32, tokens=1024)
    solution = model(inputs)                            # (b, n, 2 + features) → (b, n)
    relative_l2(solution, truth)                        # (b,)

The points are the tokens, in any order and place: nothing but their coordinates says where they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from harness.vision.recall import Block

WAVES = (1, 2, 4, 8)  # half-waves over the unit square, of the coordinates' sines and cosines


class OperatorModel(nn.Module):
    """Coordinates and what is known there → width → `depth` blocks of attention and MLP → a number a point.

    As Transolver (Wu et al. 2024, arXiv 2402.02366, section 3.3) a point-wise MLP with a hidden width of 2·width lifts
    a point, pre-norm blocks follow, a LayerNorm and a linear layer read the answer. Theirs differ in an MLP as wide as
    the model, and have no sines and cosines of the coordinates (Tancik et al. 2020, arXiv 2006.10739).

    Args: features: numbers known at a point. attention: a variant, or `variant:backend`; anchors: its m; options: its
    own; tokens: the most points.
    Raises: what attentions.MultiHeadAttention raises.
    """

    def __init__(
        self,
        *,
        features: int,
        attention: str,
        tokens: int,
        anchors: int | None = 32,
        options: Mapping[str, Any] | None = None,
        width: int = 64,
        heads: int = 4,
        depth: int = 4,
    ) -> None:
        super().__init__()
        self.lift = nn.Sequential(
            nn.Linear(2 + 4 * len(WAVES) + features, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.blocks = nn.ModuleList(
            Block(width, heads, attention=attention, tokens=tokens, anchors=anchors, **(options or {}))
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.answer = nn.Linear(width, 1)

    def forward(self, inputs: Float[Tensor, "b n known"]) -> Float[Tensor, "b n"]:
        """Inputs: two coordinates in 0 … 1, then what is known at the point."""
        x = self.lift(torch.cat([inputs, _waves(inputs[..., :2])], dim=-1))
        for block in self.blocks:
            x = block(x)
        return self.answer(self.norm(x)).squeeze(-1)


def _waves(points: Float[Tensor, "b n 2"]) -> Float[Tensor, "b n waves"]:
    angles = torch.cat([points * (math.pi * count) for count in WAVES], dim=-1)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def relative_l2(found: Float[Tensor, "b n"], true: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """‖found − true‖ / ‖true‖ of each sample, over its points. 1 is what answering zero gets."""
    return torch.linalg.vector_norm(found - true, dim=-1) / torch.linalg.vector_norm(true, dim=-1)

"""A multi-head attention layer around any variant.

layer = MultiHeadAttention(192, 3, attention="anchor", tokens=196, anchors=30)
y = layer(x)                                         # (b, n, 192) → (b, n, 192)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from attentions import registry
from attentions.base import AttentionError


class MultiHeadAttention(nn.Module):
    """Projections around a core: x W_in → heads → core → W_out, with head_dim = dim / heads.

    One `projection` gives q, k and v (3·width), or the shared q = k and v (2·width) where the variant has no query of
    its own; `output` maps the joined heads back. Cost beside the core's: 2·b·n·dim² FLOPs for each of those 3 or 4.
    A core whose backend takes the projection's output as it is (`packed`) gets it so: nothing is transposed or copied.

    Args:
        dim: width of a token; heads: must divide it.
        attention: a variant, or `variant:backend`; tokens: the longest input; anchors: the bottleneck m.
        qkv_bias: whether `projection` has a bias. options: the variant's own.

    Raises: AttentionError for sizes, names and options that cannot be; Unavailable for a backend that cannot run here.
    """

    def __init__(
        self,
        /,  # an option may be called self
        dim: int,
        heads: int,
        *,
        attention: str = "anchor",
        tokens: int,
        anchors: int | None = None,
        qkv_bias: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        if heads < 1 or dim < 1 or dim % heads:
            raise AttentionError(f"dim={dim} cannot be split into heads={heads}: heads must divide dim")
        self.heads = heads
        self.shared = registry.spec(attention).shares_query_key
        self.projection = nn.Linear(dim, (2 if self.shared else 3) * dim, bias=qkv_bias)
        self.core = registry.build(
            attention, heads=heads, head_dim=dim // heads, tokens=tokens, anchors=anchors, **options
        )
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b n width"]) -> Float[Tensor, "b n width"]:
        """(b, n, dim) → (b, n, dim)."""
        packed = self.projection(x).unflatten(-1, (-1, self.heads, x.shape[-1] // self.heads))
        take: Callable[[Tensor], Tensor | None] | None = getattr(self.core, "packed", None)
        out = None if take is None else take(packed)  # (b, n, h, d)
        if out is None:
            parts = packed.permute(2, 0, 3, 1, 4).unbind(0)  # each (b, h, n, d)
            q, k, v = (parts[0], *parts) if self.shared else parts
            out = self.core(q, k, v).transpose(1, 2)
        return self.output(out.flatten(2))

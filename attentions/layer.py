"""A multi-head attention layer around any variant.

layer = MultiHeadAttention(192, 3, attention="anchor", tokens=196, anchors=30)
y = layer(x)                                         # (b, n, 192) → (b, n, 192)
decoder = MultiHeadAttention(512, 8, attention="flash", tokens=1024, causal=True, kv_heads=2)
crossing = MultiHeadAttention(512, 8, attention="flash", tokens=1024, kv_tokens=77)
y = crossing(x, context)                             # context (b, 77, 512)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from attentions import building, registry
from attentions.base import AttentionError, keys_of


class MultiHeadAttention(nn.Module):
    """Projections around a core: x W_in → heads → core → W_out, with head_dim = dim / heads.

    One `projection` gives q, k and v, or the shared q = k and v (2·width) where the variant has no query of its own;
    `output` maps the joined heads back. q takes the width `dim`, k and v kv_heads · head_dim each. Cost beside the
    core's: 2·b·n·dim FLOPs for each column of both. A core whose backend takes the projection's output as it is
    (`packed`) gets it so: nothing is transposed or copied.

    Args:
        dim: width of a token; heads: must divide it.
        attention: a variant, or `variant:backend`; tokens: the longest input; anchors: the bottleneck m.
        causal: token i attends to tokens ≤ i. kv_heads: heads of k and v, a divisor of heads.
        kv_tokens: the longest `context`, whose tokens give k and v by a projection of their own, `context_projection`;
            `projection` then gives q alone. None: self-attention.
        qkv_bias: whether the projections to q, k and v have a bias. options: the variant's own.

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
        causal: bool = False,
        kv_heads: int | None = None,
        kv_tokens: int | None = None,
        qkv_bias: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        if heads < 1 or dim < 1 or dim % heads:
            raise AttentionError(f"dim={dim} cannot be split into heads={heads}: heads must divide dim")
        definition = registry.spec(attention)
        if kv_tokens is not None and (reason := definition.why_not(kv_tokens=kv_tokens)):
            raise AttentionError(reason)  # also of a context as long as the input
        self.heads, self.shared, self.crosses = heads, definition.shares_query_key, kv_tokens is not None
        self.kv_heads = keys_of(heads, tokens, kv_heads, kv_tokens)[0] or heads
        self.causal, keys = causal, self.kv_heads * (dim // heads)
        if self.crosses:
            self.projection = nn.Linear(dim, dim, bias=qkv_bias)
            self.context_projection = nn.Linear(dim, 2 * keys, bias=qkv_bias)
        else:
            self.projection = nn.Linear(dim, 2 * dim if self.shared else dim + 2 * keys, bias=qkv_bias)
        self.core = building.build(
            attention, heads=heads, head_dim=dim // heads, tokens=tokens, anchors=anchors, causal=causal,
            kv_heads=kv_heads, kv_tokens=kv_tokens, **options,
        )  # fmt: skip
        self.output = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "b n width"], context: Float[Tensor, "b j width"] | None = None
    ) -> Float[Tensor, "b n width"]:
        """(b, n, dim) → (b, n, dim); context (b, j, dim) where the layer was built with kv_tokens, and only there."""
        if self.crosses != (context is not None):
            raise AttentionError(
                "the layer was built with kv_tokens, for cross attention: call it as layer(x, context)"
                if self.crosses
                else "the layer is self-attention: build it with kv_tokens to give it a context"
            )
        d, projected = x.shape[-1] // self.heads, self.projection(x)
        if context is not None:
            q = projected.unflatten(-1, (-1, d)).transpose(1, 2)
            k, v = self.context_projection(context).unflatten(-1, (-1, d)).transpose(1, 2).chunk(2, dim=1)
        elif self.kv_heads != self.heads:
            heads = projected.unflatten(-1, (-1, d)).transpose(1, 2)
            q, k, v = heads.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        else:
            packed = projected.unflatten(-1, (-1, self.heads, d))  # (b, n, parts, h, d)
            take: Callable[[Tensor], Tensor | None] | None = getattr(self.core, "packed", None)
            out = None if take is None else take(packed)  # (b, n, h, d)
            if out is not None:
                return self.output(out.flatten(2))
            parts = packed.permute(2, 0, 3, 1, 4).unbind(0)  # each (b, h, n, d)
            q, k, v = (parts[0], *parts) if self.shared else parts
        return self.output(self.core(q, k, v).transpose(1, 2).flatten(2))

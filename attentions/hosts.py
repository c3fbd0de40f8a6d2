"""MultiHeadAttention behind the calls that other libraries make, so that it can stand where their attention stood.

    BlockAttention(192, 3, attention="anchor", tokens=197, anchors=30)  # what a timm block calls
    EncoderAttention(192, 3, attention="flash", tokens=197)             # what torch.nn.TransformerEncoderLayer calls

Neither library is imported: both are duck-typed. A mask is refused, never ignored: no variant here takes one.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from attentions.base import AttentionError
from attentions.layer import MultiHeadAttention


class BlockAttention(MultiHeadAttention):
    """Called as timm's `Attention`: `attn(x, attn_mask=None, is_causal=False)`, (b, n, dim) → (b, n, dim).

    proj_drop: dropout after `output`; the rest as in MultiHeadAttention.
    """

    def __init__(self, dim: int, heads: int, *, proj_drop: float = 0.0, **layer: Any) -> None:
        super().__init__(dim, heads, **layer)
        self.drop = nn.Dropout(proj_drop) if proj_drop else nn.Identity()

    def forward(
        self, x: Float[Tensor, "b n width"], attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Float[Tensor, "b n width"]:
        """(b, n, dim) → (b, n, dim). Raises AttentionError for a mask."""
        _refuse_masks(attn_mask=attn_mask is not None, is_causal=is_causal)
        return self.drop(super().forward(x))


class EncoderAttention(MultiHeadAttention):
    """Called as torch.nn.MultiheadAttention for self-attention: `attn(x, x, x)` → (output, None).

    batch_first: inputs are (b, n, dim), else (n, b, dim). The weights of the attention are not returned: the variants
    do not form them.
    """

    # In eval mode torch.nn.TransformerEncoderLayer would call its own fused layer on the weights that
    # MultiheadAttention keeps; a layer "without a bias" is the documented reason for it to call the module instead.
    in_proj_bias = None
    _qkv_same_embed_dim = True

    def __init__(self, dim: int, heads: int, *, batch_first: bool = True, **layer: Any) -> None:
        super().__init__(dim, heads, **layer)
        self.batch_first = batch_first

    @property
    def num_heads(self) -> int:
        """What torch.nn.TransformerEncoder reads before it decides how to call its layers."""
        return self.heads

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:  # fmt: skip
        """(b, n, dim) three times the same → ((b, n, dim), None). Raises AttentionError for anything else."""
        _refuse_masks(
            attn_mask=attn_mask is not None, key_padding_mask=key_padding_mask is not None, is_causal=is_causal
        )
        if query is not key or key is not value:
            raise AttentionError("a swapped attention is self-attention: query, key and value must be one tensor")
        if query.dim() != 3 or query.is_nested:
            raise AttentionError(f"a swapped attention takes (b, n, dim), not a tensor of {query.dim()} dimensions")
        if self.batch_first:
            return super().forward(query), None
        return super().forward(query.transpose(0, 1)).transpose(0, 1), None


def _refuse_masks(**given: bool) -> None:
    named = [name for name, present in given.items() if present]
    if named:
        raise AttentionError(f"{' and '.join(named)}: a swapped attention takes no mask; every token attends to all")

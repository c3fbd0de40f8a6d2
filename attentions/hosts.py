"""Other libraries' attention: what of theirs can be replaced, and the layer that stands in its place.

    BlockAttention(192, 3, attention="anchor", tokens=197, anchors=30)  # what a timm block calls
    EncoderAttention(192, 3, attention="flash", tokens=197)             # what torch.nn.TransformerEncoderLayer calls
    source = read(model.blocks[0].attn)                                 # its weights, or a sentence why not, or None

No library is imported: timm's attention and Transolver's Physics-Attention are recognised by their parts. A mask is
refused, never ignored: no variant here takes one.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attentions import separate
from attentions.base import AttentionError, unknown
from attentions.layer import MultiHeadAttention

ANSWERED = {"attn_mask", "is_causal"}  # what BlockAttention can be asked beside x
PHYSICS = ("in_project_x", "in_project_fx", "in_project_slice", "to_q", "to_k", "to_v")  # Transolver's linear layers
GRIDS = ("refused", "joined", "rows")  # what BlockAttention makes of four dimensions


class BlockAttention(MultiHeadAttention):
    """Called as timm's `Attention`: `attn(x, attn_mask=None, is_causal=False)`, (b, n, dim) → (b, n, dim).

    proj_drop: dropout after `output`. grid: what (b, rows, columns, dim) is: "refused", "joined" (one sequence of
    rows × columns tokens) or "rows" (each row a sequence of its own). The rest as in MultiHeadAttention.
    """

    def __init__(self, /, dim: int, heads: int, *, proj_drop: float = 0.0, grid: str = "refused", **layer: Any) -> None:
        if grid not in GRIDS:
            raise AttentionError(unknown("grid", grid, GRIDS))
        super().__init__(dim, heads, **layer)
        self.num_heads, self.grid = heads, grid
        self.drop = nn.Dropout(proj_drop) if proj_drop else nn.Identity()

    def forward(
        self, x: Float[Tensor, "b *n width"], attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Float[Tensor, "b *n width"]:
        """(b, n, dim) → (b, n, dim). Raises AttentionError for a mask."""
        _refuse_masks(attn_mask=attn_mask is not None, is_causal=is_causal)
        if x.dim() == 3:
            return self.drop(super().forward(x))
        if x.dim() < 3 or self.grid == "refused":
            raise AttentionError(f"a swapped attention takes (b, n, dim), not a tensor of {x.dim()} dimensions")
        sequences = x.flatten(1, -2) if self.grid == "joined" else x.flatten(0, -3)
        return self.drop(super().forward(sequences).reshape(x.shape))


class EncoderAttention(MultiHeadAttention):
    """Called as torch.nn.MultiheadAttention for self-attention: `attn(x, x, x)` → (output, None).

    batch_first: inputs are (b, n, dim), else (n, b, dim). The weights of the attention are not returned: the variants
    do not form them.
    """

    # In eval mode torch.nn.TransformerEncoderLayer would call its own fused layer on the weights that
    # MultiheadAttention keeps; widths that differ are one of its reasons to call the module instead.
    _qkv_same_embed_dim = False

    def __init__(self, /, dim: int, heads: int, *, batch_first: bool = True, **layer: Any) -> None:
        super().__init__(dim, heads, **layer)
        self.batch_first, self.num_heads = batch_first, heads

    # torch.nn.TransformerEncoder, given a padding mask in eval mode, looks at these before it asks the layer: where
    # they are and whether they train, not what they hold. Then it hands over a nested tensor, which `forward` refuses.

    @property
    def in_proj_weight(self) -> Tensor:
        """The weight of `projection`, which may hold the query's and key's rows as one."""
        return self.projection.weight

    @property
    def in_proj_bias(self) -> Tensor:
        """The bias of `projection`; where it has none, its weight: a tensor of that place."""
        return self.projection.weight if self.projection.bias is None else self.projection.bias

    @property
    def out_proj(self) -> nn.Linear:
        """`output`."""
        return self.output

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
        if query.is_nested:
            _refuse_masks(**{"key_padding_mask (as a nested tensor)": True})
        if query.dim() != 3:
            raise AttentionError(f"a swapped attention takes (b, n, dim), not a tensor of {query.dim()} dimensions")
        if self.batch_first:
            return super().forward(query), None
        return super().forward(query.transpose(0, 1)).transpose(0, 1), None


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """The weights of an attention that can be replaced, and what is to stand in its place.

    projection: the rows for query, key and value one below the other, 3·dim of them (2·dim where query and key are
    one already: shared); output: the layer after the heads are joined. host: the class that stands in, called with
    `keywords` beside a MultiHeadAttention's. lost: what it does in training that no variant here does.
    attention, anchors: what it computes, as a variant here with its m; core: that variant's own parameters by name.
    """

    heads: int
    projection: tuple[Tensor, Tensor | None]
    output: tuple[Tensor, Tensor | None]
    shared: bool
    host: type[MultiHeadAttention]
    keywords: dict[str, Any]
    lost: tuple[str, ...]
    attention: str = "full"
    anchors: int | None = None
    core: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        """The width of a token."""
        return self.projection[0].shape[1]


def read(module: nn.Module) -> Source | str | None:
    """The weights of an attention; a sentence why one cannot be replaced; None for what is no attention at all."""
    if isinstance(module, MultiHeadAttention):
        if module.crosses or module.kv_heads != module.heads:
            return "is grouped or cross attention, which its replacement would not be"
        return _of_ours(module)
    if isinstance(module, nn.MultiheadAttention):
        return _of_torch(module)
    if isinstance(getattr(module, "qkv", None), nn.Linear) and isinstance(getattr(module, "proj", None), nn.Linear):
        return _of_timm(module)
    parts = separate.read(module)
    if isinstance(parts, separate.Parts):
        return Source(
            heads=parts.heads, projection=parts.projection, output=parts.output, shared=False,
            host=separate.SeparateAttention, keywords={}, lost=parts.lost,
        )  # fmt: skip
    if all(isinstance(getattr(module, name, None), nn.Linear) for name in PHYSICS) and hasattr(module, "to_out"):
        return _of_transolver(module)
    if parts is not None or "attention" in type(module).__name__.lower():
        return parts or "has no linear layers `qkv` and `proj`"
    return None


def crosses(model: nn.Module, name: str) -> str:
    """Why the module of that name is no self-attention where it stands, or an empty text."""
    parent, _, own = name.rpartition(".")
    crossing = own == "multihead_attn" and isinstance(model.get_submodule(parent), nn.TransformerDecoderLayer)
    return "attends from one sequence to another (cross-attention)" if crossing else ""


def hooks(module: nn.Module) -> list[dict[int, Any]]:
    """The tables of hooks on calls of a module and its parts: what listens to it, or changes what it computes."""
    names = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return [getattr(part, name) for part in module.modules() for name in names]


def _of_ours(module: MultiHeadAttention) -> Source:
    keywords: dict[str, Any] = {"causal": True} if module.causal else {}
    if isinstance(module, BlockAttention):
        keywords |= {"proj_drop": getattr(module.drop, "p", 0.0), "grid": module.grid}
    if isinstance(module, EncoderAttention):
        keywords |= {"batch_first": module.batch_first}
    if isinstance(module, separate.SeparateAttention):
        keywords |= {"returns": module.returns}
    return Source(
        heads=module.heads, projection=_linear(module.projection), output=_linear(module.output),
        shared=module.shared, host=type(module), keywords=keywords, lost=(),
    )  # fmt: skip


def _of_torch(module: nn.MultiheadAttention) -> Source | str:
    further = _further(module, {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"})
    weight = module.in_proj_weight
    if weight is None:
        return "takes keys or values of another width than the queries"
    if module.bias_k is not None or module.add_zero_attn:
        return "appends a key of its own to every input (add_bias_kv, add_zero_attn)"
    if further:
        return further
    return Source(
        heads=module.num_heads, projection=(weight, module.in_proj_bias), output=_linear(module.out_proj),
        shared=False, host=EncoderAttention, keywords={"batch_first": module.batch_first},
        lost=_dropout(module.dropout),
    )  # fmt: skip


def _of_timm(module: Any) -> Source | str:
    """By structure: `qkv`, `proj`, `num_heads` and no parameter, scale or argument that softmax attention has not."""
    heads, dim = getattr(module, "num_heads", None), module.qkv.in_features
    if not isinstance(heads, int):
        return "does not tell its heads as `num_heads`"
    further = _further(module, {f"{layer}.{name}" for layer in ("qkv", "proj") for name in ("weight", "bias")})
    if further:
        return further
    asked = [name for name in list(inspect.signature(module.forward).parameters)[1:] if name not in ANSWERED]
    if asked:
        return f"is called with more than x: {', '.join(asked)}"
    if module.qkv.out_features != 3 * dim or (module.proj.in_features, module.proj.out_features) != (dim, dim):
        return f"projects tokens of width {dim} to heads of another total width"
    scale = getattr(module, "scale", (dim // heads) ** -0.5)
    if not isinstance(scale, float) or not math.isclose(scale, (dim // heads) ** -0.5):
        return f"scales its logits by {scale}, not by 1/√d"
    return Source(
        heads=heads, projection=_linear(module.qkv), output=_linear(module.proj), shared=False, host=BlockAttention,
        keywords={"proj_drop": getattr(getattr(module, "proj_drop", None), "p", 0.0)},
        lost=_dropout(getattr(getattr(module, "attn_drop", None), "p", 0.0)),
    )  # fmt: skip


def _of_transolver(module: Any) -> Source | str:
    """Physics-Attention for irregular meshes (Wu et al. 2024, arXiv 2402.02366), by the parts of its release."""
    heads, dim = getattr(module, "heads", None), module.in_project_x.in_features
    if not isinstance(heads, int):
        return "does not tell its heads as `heads`"
    out = module.to_out[0] if isinstance(getattr(module, "to_out", None), nn.Sequential) else module.to_out
    layers = (*PHYSICS, "to_out.0", "to_out")
    further = _further(module, {"temperature", *(f"{layer}.{name}" for layer in layers for name in ("weight", "bias"))})
    if further:
        return further
    sizes = {(layer.in_features, layer.out_features) for layer in (module.in_project_x, module.in_project_fx, out)}
    if sizes != {(dim, dim)}:
        return f"projects tokens of width {dim} to heads of another total width"
    slices = module.in_project_slice
    projected = (module.in_project_x, module.in_project_fx)
    biases = [layer.bias for layer in projected if layer.bias is not None]
    if len(biases) == 1 or slices.bias is None:
        return "has a bias in some of its projections alone"
    core = {
        "weight": slices.weight, "bias": slices.bias, "temperature": module.temperature.reshape(-1),
        "query": module.to_q.weight, "key": module.to_k.weight, "value": module.to_v.weight,
    }  # fmt: skip
    after = module.to_out[1] if isinstance(module.to_out, nn.Sequential) and len(module.to_out) > 1 else None
    return Source(
        heads=heads, projection=(torch.cat([x.weight for x in projected]), torch.cat(biases) if biases else None),
        output=_linear(out), shared=True, host=BlockAttention, keywords={"proj_drop": getattr(after, "p", 0.0)},
        lost=_dropout(getattr(getattr(module, "dropout", None), "p", 0.0)), attention="transolver",
        anchors=slices.out_features, core=core,
    )  # fmt: skip


def _further(module: nn.Module, known: set[str]) -> str:
    further = [name for name, _ in module.named_parameters() if name not in known]
    return f"computes more than softmax attention, with the parameters {', '.join(further)}" if further else ""


def _linear(layer: nn.Linear) -> tuple[Tensor, Tensor | None]:
    return layer.weight, layer.bias


def _dropout(probability: float) -> tuple[str, ...]:
    return (f"dropout {probability:g} of attention weights",) if probability else ()


def _refuse_masks(**given: bool) -> None:
    named = [name for name, present in given.items() if present]
    if named:
        raise AttentionError(f"{' and '.join(named)}: a swapped attention takes no mask; every token attends to all")

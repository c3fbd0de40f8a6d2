"""Attention whose query, key and value are layers of their own, as transformers' models have it: read, and replaced.

    source = read(vit.layers[0].attention)           # its weights, a sentence why not, or None
    SeparateAttention(64, 4, attention="anchor", tokens=197, anchors=30, returns=2)       # what stands in its place

No library is imported: it is recognised by the names of its parts, in the module itself or one level down (`attention`
or `self`, with the output layer in `output.dense`), and proves itself like every other (attentions.proof). GPT-2's
`Conv1D`, whose weight lies the other way round, counts as a linear layer.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attentions.base import AttentionError
from attentions.layer import MultiHeadAttention

QUERY, KEY, VALUE = ("q_proj", "query", "q_lin"), ("k_proj", "key", "k_lin"), ("v_proj", "value", "v_lin")
JOINED = ("c_attn", "qkv_proj")
OUTPUT = ("o_proj", "out_proj", "out_lin", "c_proj", "dense")
INNER, OUTER = ("attention", "self"), "output"
HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head")
DROPOUTS = ("attention_dropout", "attn_dropout", "dropout", "resid_dropout", "dropout_prob")
MASK = "attention_mask"
ROTATED = ("position_embeddings", "rotary_pos_emb", "rope")  # arguments by which positions come to query and key
# What a model may tell its attention that changes nothing where there is no cache, no mask and no rotation.
IDLE = ("use_cache", "cache_position", "position_ids", "output_attentions")


class SeparateAttention(MultiHeadAttention):
    """Called as transformers' attention: `attn(hidden_states, attention_mask=None, …)`, (b, n, dim) → (b, n, dim).

    returns: 0 for the tensor alone, else the length of the tuple that it is the first of, the rest None: no variant
    forms the weights of the attention. The rest as in MultiHeadAttention.
    """

    def __init__(self, /, dim: int, heads: int, *, returns: int = 0, **layer: Any) -> None:
        super().__init__(dim, heads, **layer)
        self.num_heads, self.returns = heads, returns

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, hidden_states: Tensor, *further: Any, **named: Any
    ) -> Tensor | tuple[Tensor | None, ...]:
        """(b, n, dim) → (b, n, dim). Raises AttentionError for a mask, a cache, or whatever else it is told."""
        told = {f"argument {at + 2}": value for at, value in enumerate(further)} | named
        asked = [name for name, value in told.items() if value is not None and value is not False and name not in IDLE]
        if asked or named.get("output_attentions"):
            what = ", ".join(asked) or "output_attentions"
            raise AttentionError(f"{what}: a swapped attention is called with the tokens alone, without mask or cache")
        out = super().forward(hidden_states)
        return (out, *(None,) * (self.returns - 1)) if self.returns else out


@dataclass(frozen=True)
class Parts:
    """What is read of a module: its heads, (weight, bias) of the joined projection and of the output, what is lost."""

    heads: int
    projection: tuple[Tensor, Tensor | None]
    output: tuple[Tensor, Tensor | None]
    lost: tuple[str, ...]


def read(module: nn.Module) -> Parts | str | None:
    """The weights of such an attention; a sentence why one cannot be replaced; None for another module."""
    inner = next((part for part in (module, *_children(module, INNER)) if _projections(part) is not None), None)
    if inner is None:
        return None
    outer = [module, *_children(module, (OUTER,))]
    output = next((found for part in outer for found in _children(part, OUTPUT) if _linear(found)), None)
    projections = _projections(inner)
    if output is None or projections is None:
        return None
    further = _further(module, [*projections, output])
    if further:
        return f"computes more than softmax attention, with the parameters {', '.join(further)}"
    heads = heads_of(inner)
    if heads is None:
        return "does not tell its heads as `num_heads`"
    named = inspect.signature(module.forward).parameters
    asked = [*(n for n in needed(module)[1:] if n not in (MASK, *ROTATED)), *(n for n in ROTATED if n in named)]
    if asked:
        return f"is called with more than x: {', '.join(asked)}"
    found = [_weights(part) for part in projections]
    weight = torch.cat([w for w, _ in found])
    biases = [b if b is not None else w.new_zeros(len(w)) for w, b in found]
    bias = torch.cat(biases) if any(b is not None for _, b in found) else None
    out = _weights(output)
    dim = weight.shape[1]
    if weight.shape[0] != 3 * dim or tuple(out[0].shape) != (dim, dim):
        return f"projects tokens of width {dim} to heads of another total width"
    return Parts(heads=heads, projection=(weight, bias), output=out, lost=_dropout(module))


def heads_of(module: nn.Module) -> int | None:
    """The heads that an attention tells by itself or by its configuration."""
    for holder in (module, getattr(module, "config", None)):
        for name in HEADS:
            if isinstance(heads := getattr(holder, name, None), int) and heads > 0:
                return heads
    return None


def needed(module: nn.Module) -> list[str]:
    """The parameters of its call that have no default."""
    return [
        name for name, p in inspect.signature(module.forward).parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]  # fmt: skip


def silence(module: nn.Module) -> None:
    """Turn every dropout off, of weights and of outputs: the report names it."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        for name in DROPOUTS:
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)


def _children(module: nn.Module, names: tuple[str, ...]) -> list[nn.Module]:
    return [part for name in names if isinstance(part := getattr(module, name, None), nn.Module)]


def _projections(module: nn.Module) -> list[nn.Module] | None:
    """The linear layers of query, key and value, one for all where they are joined; None where it has none."""
    joined = [part for part in _children(module, JOINED) if _linear(part)]
    if joined:
        return joined[:1]
    found = [[part for part in _children(module, names) if _linear(part)] for names in (QUERY, KEY, VALUE)]
    return [parts[0] for parts in found] if all(found) else None


def _linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or _transposed(module)


def _transposed(module: nn.Module) -> bool:
    """transformers' Conv1D: x @ weight + bias."""
    return type(module).__name__ == "Conv1D" and isinstance(getattr(module, "nf", None), int)


def _weights(module: Any) -> tuple[Tensor, Tensor | None]:
    return (module.weight.t(), module.bias) if _transposed(module) else (module.weight, module.bias)


def _further(module: nn.Module, known: list[nn.Module]) -> list[str]:
    """The parameters that are none of these layers'."""
    own = {id(parameter) for part in known for parameter in part.parameters()}
    return [name for name, parameter in module.named_parameters() if id(parameter) not in own]


def _dropout(module: nn.Module) -> tuple[str, ...]:
    found = [part.p for part in module.modules() if isinstance(part, nn.Dropout)]
    found += [p for name in DROPOUTS if isinstance(p := getattr(module, name, None), float)]
    worst = max(found, default=0.0)
    return (f"dropout {worst:g} in training",) if worst else ()

"""The layer that takes an attention's place, with the weights that fit.

layer = stand_in(source, "anchor", anchors=30, tokens=197, options={})   # source: attentions.hosts.read(module)
became = fill(layer, module, source, name="blocks.0.attn", merge="symmetric")
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attentions.base import AttentionError
from attentions.hosts import Source, hooks
from attentions.layer import MultiHeadAttention
from attentions.merge import shared_projection


@dataclass(frozen=True, kw_only=True)
class Swapped:
    """What became of one attention.

    was: its class. kept: parts with their trained weights; merged: parts made one; copied: parts started from one;
    fresh: new parameters with their shapes; lost: what it did that no variant does.
    """

    name: str
    was: str
    kept: tuple[str, ...] = ()
    merged: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def facts(self) -> str:
        """Everything but the name, as a sentence."""
        words = ("kept", "merged", "copied", "fresh", "lost")
        said = [f"{word} {', '.join(getattr(self, word))}" for word in words if getattr(self, word)]
        return f"{self.was}: {'; '.join(said)}"


def stand_in(
    source: Source, attention: str, *, anchors: int | None, tokens: int | None, options: dict[str, Any]
) -> MultiHeadAttention:
    """A new layer of the source's size, called as what it replaces. Raises AttentionError as the variant does."""
    if tokens is None:
        raise AttentionError("tokens: this model does not tell its number of tokens; give the longest input's")
    layer = source.host(
        source.dim, source.heads, attention=attention, tokens=tokens, anchors=anchors,
        qkv_bias=source.projection[1] is not None, **source.keywords, **options,
    )  # fmt: skip
    if source.output[1] is None:
        layer.output = nn.Linear(source.dim, source.dim, bias=False)
    return layer


def fill(layer: MultiHeadAttention, module: nn.Module, source: Source, *, name: str, merge: str) -> Swapped:
    """Give the layer the source's weights, place, precision and mode."""
    parts = _parts(source)
    value = parts[-1]
    kept: tuple[str, ...] = ("value", "output")
    merged: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()
    if layer.shared == source.shared:
        kept = ("query/key" if layer.shared else "query, key", *kept)
    elif layer.shared:
        parts = [shared_projection(parts[0], parts[1], heads=source.heads, how=merge), value]
        merged = (f"query and key ({merge})",)
    else:
        parts = [parts[0], *parts]
        copied = ("query and key from the shared projection",)
    layer.to(device=value[0].device, dtype=value[0].dtype)
    with torch.no_grad():
        for linear, (weight, bias) in (
            (layer.projection, (torch.cat([w for w, _ in parts]), _joined([b for _, b in parts]))),
            (layer.output, source.output),
        ):
            linear.weight.copy_(weight)
            if bias is not None:
                linear.bias.copy_(bias)
    layer.projection.requires_grad_(source.projection[0].requires_grad)
    layer.output.requires_grad_(source.output[0].requires_grad)
    layer.train(module.training)
    fresh = tuple(f"{part} {tuple(p.shape)}" for part, p in layer.core.named_parameters())
    lost = source.lost
    if source.core and _same_core(layer, source):
        with torch.no_grad():
            for part, parameter in layer.core.named_parameters():
                parameter.copy_(source.core[part])
        kept, fresh = (*kept, *source.core), ()
    elif source.core:
        lost = (*lost, f"{source.anchors} slices and the attention among them")
    heard = sum(len(table) for table in hooks(module))
    lost = (*lost, f"{heard} hook{'s' * (heard > 1)}") if heard else lost
    return Swapped(
        name=name, was=type(module).__name__, kept=kept, merged=merged, copied=copied, fresh=fresh, lost=lost
    )


def _same_core(layer: MultiHeadAttention, source: Source) -> bool:
    """Whether the layer's variant has the source's own parameters, by name and shape."""
    held = {part: parameter.shape for part, parameter in layer.core.named_parameters()}
    return held == {part: tensor.shape for part, tensor in source.core.items()}


def _parts(source: Source) -> list[tuple[Tensor, Tensor | None]]:
    """(weight, bias) of query, key and value; of the shared one and value where query and key are one."""
    weight, bias = source.projection
    count = 2 if source.shared else 3
    biases = bias.chunk(count) if bias is not None else [None] * count
    return list(zip(weight.chunk(count), biases, strict=True))


def _joined(biases: list[Tensor | None]) -> Tensor | None:
    present = [bias for bias in biases if bias is not None]
    return torch.cat(present) if present else None

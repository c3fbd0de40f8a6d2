"""Puts a variant into an existing model in the place of its attention, keeping the trained weights that fit.

    import attentions

    report = attentions.swap(vit, "anchor", anchors=30)                      # a timm ViT, changed in place
    print(report)                                                            # kept, merged and fresh, module by module
    attentions.swap(encoder, "flash", tokens=512, where="layers.*.self_attn")   # a name pattern; or where=SomeClass

Recognised are timm's `Attention`, Transolver's Physics-Attention for irregular meshes and transformers' attention with
separate query, key and value (by their parts: none is imported), torch.nn.MultiheadAttention used for self-attention,
and this package's own layer. Each that is taken has first been run beside what it looks like with its weights and
agreed (attentions.proof): with `full` or `flash`, or with `transolver` and as many anchors in the place of
Physics-Attention, the model computes what it did, up to rounding.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from torch import nn

from attentions.base import AttentionError, unknown
from attentions.hosts import Source, crosses, read
from attentions.layer import MultiHeadAttention
from attentions.merge import MERGES
from attentions.proof import proven
from attentions.standin import Swapped, fill, stand_in

Where = str | re.Pattern[str] | type[nn.Module] | tuple[type[nn.Module], ...]
MOST_NAMED = 6


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a swap did. `print` it.

    modules: each attention replaced; left: (name, why) of those that stay as they were; parameters: of the whole
    model, before and after.
    """

    attention: str
    modules: tuple[Swapped, ...]
    left: tuple[tuple[str, str], ...] = ()
    parameters: tuple[int, int]

    def __str__(self) -> str:
        before, after = self.parameters
        lines = [f"{self.attention} in {len(self.modules)} modules; parameters {before:,} → {after:,}"]
        for facts, group in groupby(self.modules, key=lambda module: module.facts):
            lines.append(f"  {_place([module.name for module in group])}  {facts}")
        for why, group in groupby(self.left, key=lambda item: item[1]):
            lines.append(f"  {_place([name for name, _ in group])}  left as it was: {why}")
        return "\n".join(lines)


def swap(
    model: nn.Module, attention: str, *, anchors: int | None = None, tokens: int | None = None,
    where: Where | None = None, merge: str = "symmetric", **options: Any,
) -> Report:  # fmt: skip
    """Replace attention modules of `model`, in place, by layers that compute `attention`. All or, on an error, none.

    Args:
        model: a tree of modules. attention: a variant, or `variant:backend`; anchors: its m; options: its own.
        tokens: the longest input, class tokens included; a timm ViT tells it by itself.
        where: which modules: a pattern for dotted names ("blocks.*.attn"; * crosses dots), a compiled regular
            expression for the whole name, or a class or classes; all that are recognised by default.
        merge: how a trained query and key become the one projection of a variant that shares them: "symmetric",
            "mean" or "key"; see attentions.merge for why the first is the default.

    Returns: what was kept, merged, copied, started fresh and lost, module by module.
    Raises: AttentionError where nothing matches, a match cannot be replaced, or the variant refuses the size.
    """
    if merge not in MERGES:
        raise AttentionError(unknown("merge", merge, MERGES))
    if tokens is None:
        tokens = _tokens(model)
    chosen, left = _choose(model, where, tokens)
    before = _size(model)
    made: dict[int, tuple[MultiHeadAttention, Swapped]] = {}
    for name, (module, source) in chosen.items():
        if id(module) not in made:  # one module in two places stays one
            layer = stand_in(source, attention, anchors=anchors, tokens=tokens, options=options)
            made[id(module)] = layer, fill(layer, module, source, name=name, merge=merge)
    for name, (module, _) in chosen.items():
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, made[id(module)][0])
    return Report(
        attention=attention,
        modules=tuple(swapped for _, swapped in made.values()),
        left=tuple(left),
        parameters=(before, _size(model)),
    )


def _choose(
    model: nn.Module, where: Where | None, tokens: int | None
) -> tuple[dict[str, tuple[nn.Module, Source]], list[tuple[str, str]]]:
    """The attentions to replace by name, and those that cannot be, with the reason. Raises AttentionError."""
    chooses = _chooser(where)
    chosen: dict[str, tuple[nn.Module, Source]] = {}
    known: dict[str, str] = {}
    refused: list[tuple[str, str]] = []
    matched: list[str] = []
    tried: dict[int, Source | str] = {}
    inside = None  # the attention whose parts are being passed: they are no attentions of their own
    for name, module in model.named_modules(remove_duplicate=False):
        source = None if inside is not None and name.startswith(inside) else read(module)
        if isinstance(source, Source):
            known[name], inside = type(module).__name__, f"{name}." if name else ""
        if not chooses(name, module):
            continue
        matched.append(f"{name or '(the model itself)'} ({type(module).__name__})")
        if isinstance(source, Source):
            if id(module) not in tried:
                tried[id(module)] = crosses(model, name) or proven(module, source, tokens=tokens)
            source = tried[id(module)]
        if isinstance(source, str):
            known.pop(name, None)
            refused.append((name, f"{type(module).__name__} {source}"))
        elif source is not None:
            chosen[name] = module, source
    if "" in chosen:
        raise AttentionError("the model is itself an attention; put it into a torch.nn.Sequential and swap in that")
    if where is not None and refused:
        raise AttentionError(f"where={_told(where)}: {refused[0][0]} cannot be replaced: {refused[0][1]}")
    if chosen:
        return chosen, refused
    offer = f"attention here: {_listed([f'{n} ({t})' for n, t in known.items()])}" if known else _nothing(refused)
    if where is None:
        raise AttentionError(f"{type(model).__name__} holds no attention that can be replaced; {offer}")
    if matched:
        raise AttentionError(f"where={_told(where)} matches {_listed(matched)}, none of which is attention; {offer}")
    raise AttentionError(f"where={_told(where)} matches no module of {type(model).__name__}; {offer}")


def _chooser(where: Where | None) -> Callable[[str, nn.Module], bool]:
    if where is None:
        return lambda name, module: True
    if isinstance(where, str):
        return lambda name, module: fnmatch.fnmatchcase(name, where)
    if isinstance(where, re.Pattern):
        return lambda name, module: where.fullmatch(name) is not None
    classes = where if isinstance(where, tuple) else (where,)
    if not classes or not all(isinstance(each, type) for each in classes):
        raise AttentionError(f"where={where!r}: give a pattern of names, a compiled expression, a class or classes")
    return lambda name, module: isinstance(module, classes)


def _tokens(model: nn.Module) -> int | None:
    """Patches and prefix tokens of a timm ViT, or None."""
    patches = getattr(getattr(model, "patch_embed", None), "num_patches", None)
    prefix = getattr(model, "num_prefix_tokens", None)
    return patches + prefix if isinstance(patches, int) and isinstance(prefix, int) else None


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _place(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)})"


def _told(where: Where) -> str:
    if isinstance(where, type):
        return where.__name__
    return repr(where.pattern if isinstance(where, re.Pattern) else where)


def _nothing(refused: list[tuple[str, str]]) -> str:
    if refused:
        return _listed([f"{name}: {why}" for name, why in refused])
    return "known are timm's Attention, torch.nn.MultiheadAttention, Transolver's and attentions.MultiHeadAttention"


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")

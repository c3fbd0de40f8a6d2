"""Whole models of other libraries and of the user's own, as cases measure them: made, with an attention swapped in.

    asked = Asked(name="timm:vit_tiny_patch16_224", side=224)
    facts(asked)                                         # tokens, heads and head dimension that its attention sees
    model = build(replace(asked, attention="anchor", anchors=30))        # one tensor → one tensor
    build(Asked(name="hf:gpt2", tokens=512))(ids)        # the configuration that transformers has by that name

A model is in eval mode, so that no dropout stands between it and its float64 truth. harness.vision.sources makes it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

import attentions
from attentions import hosts
from attentions.separate import heads_of
from harness.errors import UsageError
from harness.store.record import Case
from harness.vision.models import AS_IS
from harness.vision.sources import Whole, made

CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A model at one size: square images of `side` pixels, or `tokens` of them; with an attention swapped in."""

    name: str
    side: int | None = None
    tokens: int | None = None
    attention: str = AS_IS
    anchors: int | None = None
    options: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, case: Case, attention: str, options: Mapping[str, Any]) -> Asked:
        """What a case asks for, with the attention by that name."""
        given = case.model_options
        side = int(given["resolution"]) if "resolution" in given else None
        return cls(
            name=given["model"], side=side, tokens=None if side else case.n, attention=attention, anchors=case.m,
            options=tuple(sorted(options.items())),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a model is at a size: the tokens, heads and head dimension of its attention, 0 where none is recognised.

    out: the shape of its output for one image or sequence; vocabulary: of its token ids, 0 for images;
    note: how its attention came to be what it is.
    """

    n: int
    h: int
    d: int
    out: tuple[int, ...]
    vocabulary: int
    note: str


def build(asked: Asked) -> Whole:
    """The model with random weights, or those that were named, and its attention replaced where that is asked.

    Raises UsageError for what does not exist or takes other inputs, AttentionError where nothing can be swapped.
    """
    whole = made(asked.name, side=asked.side, tokens=asked.tokens)
    if asked.attention != AS_IS:
        tokens = max(facts(replace(asked, attention=AS_IS, options=())).n, 1)
        attentions.swap(whole.model, asked.attention, anchors=asked.anchors, tokens=tokens, **dict(asked.options))
    return whole


@lru_cache(maxsize=64)
def facts(asked: Asked) -> Facts:
    """What the model is, found by running it without values, or with, where it cannot do without. As `build` raises."""
    with torch.random.fork_rng(devices=[]), _quietly():
        try:
            with torch.device("meta"):
                return _facts(asked)
        except (UsageError, attentions.AttentionError, attentions.Unavailable):
            raise
        except Exception:  # a model that reads values as it is made or called; what else is wrong, the next line raises
            return _facts(asked)


def _facts(asked: Asked) -> Facts:
    whole = made(asked.name, side=asked.side, tokens=asked.tokens, weighed=False)
    seen = _seen(whole, asked)
    note = ""
    if asked.attention != AS_IS:
        report = attentions.swap(
            whole.model, asked.attention, anchors=asked.anchors, tokens=max(seen.n, 1), **dict(asked.options)
        )
        if report.left:
            total = len(report.modules) + len(report.left)
            note = f"in {len(report.modules)} of {total} attentions; {report.left[0][0]} was left: {report.left[0][1]}"
    return Facts(n=seen.n, h=seen.h, d=seen.d, out=_called(whole, asked), vocabulary=whole.vocabulary, note=note)


@dataclass(frozen=True)
class _Seen:
    """The longest sequence that an attention of the model sees, and the heads and head dimension of the first."""

    n: int
    h: int
    d: int


def _seen(whole: Whole, asked: Asked) -> _Seen:
    """Call the model once and look at what comes to its attentions."""
    lengths: list[int] = []
    first: list[tuple[int, int]] = []
    handles = []
    for name, module in whole.model.named_modules():
        heads = _heads(module)
        if heads is None or not name:
            continue

        def look(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], heads: int = heads) -> None:
            tensors = [t for t in (*given, *named.values()) if isinstance(t, Tensor) and t.dim() >= 3]
            if tensors:
                lengths.append(math.prod(tensors[0].shape[1:-1]))
                own = getattr(module, "head_dim", None)
                first.append((heads, own if isinstance(own, int) else tensors[0].shape[-1] // heads))

        handles.append(module.register_forward_pre_hook(look, with_kwargs=True))
    try:
        _called(whole, asked)
    finally:
        for handle in handles:
            handle.remove()
    if not lengths:
        return _Seen(asked.tokens or 0, 0, 0)
    return _Seen(max(lengths), *first[0])


def _heads(module: nn.Module) -> int | None:
    """The heads of what is an attention, by what it is called and what it says; None for another module."""
    known = hosts.read(module)
    if isinstance(known, hosts.Source):
        return known.heads
    if known is None and "attention" not in type(module).__name__.lower():
        return None
    return next((heads for part in module.modules() if (heads := heads_of(part)) is not None), None)


def _called(whole: Whole, asked: Asked) -> tuple[int, ...]:
    """The shape of what the model gives for one image or sequence. Raises UsageError where it gives no tensor."""
    if asked.side is not None:
        x = torch.zeros(1, CHANNELS, asked.side, asked.side)
    else:
        x = torch.zeros(1, asked.tokens or 1, dtype=torch.int64)
    with torch.no_grad():
        found = whole(x)
    if found.dim() < 2 or found.shape[0] != 1:
        raise UsageError(
            f"model {asked.name} makes {_shape(found)} of one input; it has to give (b, …) of a batch of b"
        )
    return tuple(found.shape)


def _shape(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "a number"


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the tables that libraries print as they make a model."""
    with contextlib.redirect_stdout(None):
        yield

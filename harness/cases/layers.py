"""Whole layers of a plugin among the variants: which there are, which have an m, and their one scope. No torch.

asked = each(("my", "flash"), catalogue)         # ("my:Layer", "my:Other", "flash"): a plugin's name is all its layers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.store.record import Case


def told(backend: Any) -> str | None:
    """What m is of a layer, empty where it has none, as a catalogue tells it; None for a backend that is no layer."""
    if backend.layer is None:
        return None
    return "anchors" if "anchors" in getattr(backend.layer, "asks", ()) else ""


def each(asked: Sequence[str], catalogue: Mapping[str, Any]) -> tuple[str, ...]:
    """The variants with each plugin of layers as its layers, those that can be built."""
    found: list[str] = []
    for name in asked:
        backends = catalogue.get(name, {}).get("backends", {})
        layers = [each for each, facts in backends.items() if facts.get("layer") is not None and facts["automatic"]]
        found += [f"{name}:{layer}" for layer in layers] or [name]
    return tuple(dict.fromkeys(found))


def has_bottleneck(entry: Mapping[str, Any], backend: str) -> bool:
    """Whether m concerns a variant, or one layer of a plugin that has several."""
    layer = entry["backends"].get(backend, {}).get("layer")
    return bool(entry["bottleneck"] if layer is None else layer)


def why_not_here(case: Case, backend: Any) -> str | None:
    """Why a layer has no such scope, or None."""
    if backend.layer is None or case.scope == "layer":
        return None
    kind = "core of q, k and v" if case.scope == "core" else "core that a model's own layers could take up"
    return f"{case.label} is a whole layer, with projections of its own, and no {kind}: measure it with --scope layer"

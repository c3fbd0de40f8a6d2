"""Which rows of a run are meant, and how a table lays them out, in the words of a sweep: what Python callers give.

frame = kept(run.frame, {"attention": "anchor,flash", "n": [1024, "4k"]})
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

from harness.cases.filters import only, words
from harness.errors import UsageError, unknown
from harness.store import pivot

Values = str | int | Iterable[str | int]


class Only(TypedDict, total=False):
    """Which rows are meant, in the words of a sweep: attention="anchor,flash", n=[1024, "4k"], phase="train"."""

    attention: Values
    n: Values
    m: Values
    batch: Values
    heads: Values
    head_dim: Values
    causal: bool | Iterable[bool]
    kv_heads: Values
    kv_tokens: Values
    phase: Values
    dtype: Values
    scope: Values
    device: Values
    machine: Values


def kept(frame: Any, which: Only) -> Any:
    """The rows that are meant. Raises UsageError for an axis that is none and for what the frame does not hold."""
    for name in which:
        if name not in Only.__annotations__:
            raise UsageError(unknown("axis to choose rows by", name, Only.__annotations__))
    return only(frame, **{name: texts(values) for name, values in which.items()})


def axes(given: Sequence[str]) -> tuple[str, ...]:
    """Axes of a table by their columns, `heads` and the like by the sweep's names too."""
    found = words(given, what="axis", valid=(*pivot.AXES, *pivot.WORDS))
    return tuple(dict.fromkeys(pivot.WORDS.get(name, name) for name in found))


def texts(values: Any) -> list[str]:
    """'anchor' → ['anchor']; 4096 → ['4096']; [1024, '4k'] → ['1024', '4k']."""
    return [str(values)] if isinstance(values, str | int) else [str(value) for value in values]

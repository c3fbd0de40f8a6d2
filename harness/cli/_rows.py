"""The options that choose rows of a stored run, in the words of a sweep, shared by `show`, `plot` and `compare`.

    @with_rows
    def command(which: dict[str, Any], run: Path | None = ...) -> None: ...

`which` receives those that were given; harness.cases.filters says what they mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.cli._given import given_first, given_of, parameter

ROWS: dict[str, tuple[Any, str]] = {
    "attention": (list[str], "Only these: anchor, anchor:sdpa."),
    "n": (list[str], "Only these token counts: 1024,4k."),
    "m": (list[str], "Only these m, and the exact variants."),
    "batch": (list[str], "Only these batch sizes."),
    "heads": (list[str], "Only these numbers of heads."),
    "head_dim": (list[str], "Only these head dimensions."),
    "causal": (bool, "Only causal attention."),
    "kv_heads": (list[str], "Only these numbers of heads of keys."),
    "kv_tokens": (list[str], "Only these numbers of keys."),
    "phase": (list[str], "Only these phases."),
    "dtype": (list[str], "Only these dtypes."),
    "scope": (list[str], "Only these scopes."),
    "device": (list[str], "Only these devices."),
}


def with_rows(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that choose rows; it receives those given as its first argument, `which`."""
    shared = [parameter(name, kind, text) for name, (kind, text) in ROWS.items()]
    return given_first(command, shared, given_of, last=True)

"""The problems of a sweep: causal, kv_heads and kv_tokens as axes, and what of them can be at a size. No torch.

problems = asked_problems(sweep)                     # [Problem(), Problem(causal=True), …]
problems_at([(6, 4096)], problems)[6, 4096]          # each once, in its shortest form there
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, Protocol

from harness.errors import UsageError, brief
from harness.store.problem import Problem
from harness.store.record import TRUTHS

OF_MODEL = "a model has its own attention, which is none of these"


class Asked(Protocol):
    """The axes of a sweep that are read here."""

    @property
    def scope(self) -> tuple[str, ...]: ...
    @property
    def causal(self) -> tuple[bool, ...]: ...
    @property
    def kv_heads(self) -> tuple[int, ...]: ...
    @property
    def kv_tokens(self) -> tuple[int, ...]: ...
    @property
    def sequence_parallel(self) -> int: ...


def asked_problems(sweep: Asked) -> list[Problem]:
    """Every problem that the axes ask for. Raises UsageError for what a scope or several processes do not have."""
    heads: Sequence[int | None] = sweep.kv_heads or (None,)
    tokens: Sequence[int | None] = sweep.kv_tokens or (None,)
    named = [
        ("--causal", any(sweep.causal)), ("--kv-heads", bool(sweep.kv_heads)), ("--kv-tokens", bool(sweep.kv_tokens))
    ]  # fmt: skip
    given = [option for option, is_given in named if is_given]
    if given and "model" in sweep.scope:
        raise UsageError(f"{given[0]} means nothing in scope model: {OF_MODEL}; give --scope core or layer")
    if given and sweep.sequence_parallel > 1:
        raise UsageError(f"--sequence-parallel shares bidirectional self-attention; leave {given[0]} out")
    return [Problem(causal=c, kv_heads=h, kv_tokens=t) for c, h, t in product(sweep.causal, heads, tokens)]


def problems_at(
    sizes: Sequence[tuple[int, int]], problems: Sequence[Problem]
) -> tuple[dict[tuple[int, int], list[Problem]], list[str]]:
    """The problems at each (h, n), without repeats, and warnings of what was left out.

    Raises UsageError for a kv_heads that divides no h, and for what leaves open what is meant.
    """
    found: dict[tuple[int, int], list[Problem]] = {}
    dropped: dict[int, set[int]] = {}
    for h, n in sizes:
        own = dict.fromkeys(problem.at(h=h, n=n) for problem in problems)
        for problem in own:
            if problem.kv_heads is not None and h % problem.kv_heads:
                dropped.setdefault(problem.kv_heads, set()).add(h)
            if problem.causal and problem.kv_tokens is not None:
                raise UsageError(
                    f"--causal with --kv-tokens {problem.kv_tokens} at n={n} leaves open which token sees which; "
                    "ask for one of them"
                )
        found[h, n] = [problem for problem in own if problem.kv_heads is None or h % problem.kv_heads == 0]
    heads = {h for h, _ in sizes}
    for kv_heads, others in dropped.items():
        if others == heads:
            raise UsageError(
                f"--kv-heads {kv_heads} must divide --heads, which is {', '.join(map(str, sorted(heads)))}: "
                "so many heads of queries share each head of keys"
            )
    told = ", ".join(f"kv_heads={kv} heads={h}" for kv, others in sorted(dropped.items()) for h in sorted(others))
    return found, [f"left out, since kv_heads must divide heads: {told}"] if told else []


def truth(value: Any, *, axis: str = "causal") -> bool:
    """true or false of a word or a value. Raises ValueError for another."""
    word = str(value).strip().lower()
    if word not in TRUTHS:
        raise ValueError(f"{brief(repr(value))} is not valid: {axis} takes true, false or both")
    return TRUTHS[word]

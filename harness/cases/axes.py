"""Sizes as users write them: lists, ranges that double, and suffixes. No torch.

sizes("1024,4k..16k", axis="n")      # [1024, 4096, 8192, 16384]
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.errors import brief

LARGEST = {
    "n": 1 << 30, "m": 1 << 20, "batch": 1 << 20, "heads": 1 << 12, "head_dim": 1 << 12, "resolution": 1 << 14,
    "kv_heads": 1 << 12, "kv_tokens": 1 << 30,
}  # fmt: skip
SUFFIXES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
MOST_VALUES = 1000
LARGEST_BATCH = -1  # stands for the batch that is yet to be found (harness.sweep.largest)
USUAL_M = 64
EXAMPLES = {
    "n": "4096, 16k, 1k..64k", "m": "64, 16..256", "batch": "1, 1..32", "heads": "6, 4..16", "head_dim": "64, 32..128",
    "resolution": "224, 448, 224..1792", "kv_heads": "1, 1..8", "kv_tokens": "1k, 1k..64k",
}  # fmt: skip


def sizes(text: Any, *, axis: str) -> list[int]:
    """'4096' → [4096]; '16k' → [16384]; '1k..8k' → [1024, 2048, 4096, 8192]; lists by comma.

    Of the axis batch 'max' too, which is LARGEST_BATCH: what fits.
    """
    found: list[int] = []
    for word in str(text).split(","):
        if axis == "batch" and word.strip() in ("max", str(LARGEST_BATCH)):
            found.append(LARGEST_BATCH)
            continue
        low, dots, high = word.strip().partition("..")
        first = _size(low, axis=axis, whole=str(text))
        if not dots:
            found.append(first)
            continue
        last = _size(high, axis=axis, whole=str(text))
        if last < first:
            raise ValueError(f"the range {brief(word.strip())!r} runs downwards; write {brief(high)}..{brief(low)}")
        while first <= last:
            found.append(first)
            first *= 2
    if len(found) > MOST_VALUES:
        raise ValueError(f"{len(found)} values; at most {MOST_VALUES}")
    return found


def rule(axis: str) -> str:
    """What an axis takes, in words."""
    also = ", or max, the largest that fits" if axis == "batch" else ""
    return f"{axis} takes whole numbers from 1 to {LARGEST[axis]}, such as {EXAMPLES[axis]} or a list of them{also}"


def usual_m(n: int) -> int:
    """The m at n tokens where none was chosen: 64, or the largest power of two below n where that is less."""
    return min(USUAL_M, 1 << max(0, (n - 1).bit_length() - 1))


def adapted_m(found: Iterable[tuple[int, int]]) -> list[str]:
    """A warning of the (n, m) at which the usual m had to be less; none where there are none."""
    told = [f"m={m} for {n} tokens" for n, m in sorted(found)]
    more = f" and {len(told) - 6} more" if len(told) > 6 else ""
    usual = f"m is {USUAL_M} by default, which is not below the number of tokens"
    return [f"{usual}: {', '.join(told[:6])}{more}; --m chooses another"] if told else []


def _size(text: str, *, axis: str, whole: str) -> int:
    word = text.strip().lower()
    factor = SUFFIXES.get(word[-1:], 1)
    digits = word[:-1] if factor > 1 else word
    most = LARGEST[axis]
    valid = rule(axis)
    if not (digits.isascii() and digits.isdecimal()):
        raise ValueError(f"{brief(whole)!r} is not valid: {valid}")
    value = int(digits[:20]) * factor
    if not 1 <= value <= most:
        raise ValueError(f"{brief(whole)!r} is out of range: {valid}")
    return value

"""Which attention problem a case is: causal, with fewer heads of keys than of queries, or with keys of other tokens.

    asked = Problem.of({"kv_heads": "2", "init": "paper"}, h=6, n=4096)
    asked.options, asked.keywords, str(asked)       # {"kv_heads": "2"}, {"kv_heads": 2}, "kv_heads=2"
    told("causal=true;init=paper")                  # "causal": the same of a row's options, as tables call it

A number that is the queries' own (kv_heads = h, kv_tokens = n) is the default problem and stands nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PROBLEM_KEYS = ("causal", "kv_heads", "kv_tokens")  # what `options` holds of a problem beside the variant's own
DEFAULT = "default"  # what tables call the problem of a case that asks for none of them


@dataclass(frozen=True, kw_only=True)
class Problem:
    """causal: token i attends to tokens ≤ i; kv_heads: heads of k and v, which divide h; kv_tokens: their tokens.

    None of a number: the queries' own.
    """

    causal: bool = False
    kv_heads: int | None = None
    kv_tokens: int | None = None

    @classmethod
    def of(cls, options: Mapping[str, str], *, h: int, n: int) -> Problem:
        """The problem of a row's options at h heads and n tokens. Raises ValueError for what is no number."""
        causal = options.get("causal", "false").lower() == "true"
        heads, tokens = (int(options[key]) if key in options else None for key in ("kv_heads", "kv_tokens"))
        return cls(causal=causal, kv_heads=heads, kv_tokens=tokens).at(h=h, n=n)

    def at(self, *, h: int, n: int) -> Problem:
        """The same at h heads and n tokens: what is the queries' own there is None."""
        return Problem(
            causal=self.causal, kv_heads=None if self.kv_heads == h else self.kv_heads,
            kv_tokens=None if self.kv_tokens == n else self.kv_tokens,
        )  # fmt: skip

    @property
    def keywords(self) -> dict[str, Any]:
        """What attentions is asked for, where it is not the default."""
        return {name: value for name in PROBLEM_KEYS if (value := getattr(self, name))}

    @property
    def options(self) -> dict[str, str]:
        """As a row's options hold it."""
        return {name: str(value).lower() for name, value in self.keywords.items()}

    def __str__(self) -> str:
        return _told(self.options)


def told(options: str) -> str:
    """`causal kv_heads=2` of a row's options; `default` where they ask for nothing of the kind."""
    parts = {key: value for key, _, value in (part.partition("=") for part in options.split(";"))}
    asked = {name: parts[name] for name in PROBLEM_KEYS if name in parts}
    return _told({name: value for name, value in asked.items() if name != "causal" or value.lower() == "true"})


def order(text: str) -> tuple[Any, ...]:
    """A sort key of what `told` gives: the default first, then by number."""
    return "causal" in parts_of(text), *(number(text, name) or 0 for name in PROBLEM_KEYS[1:]), text


def parts_of(text: str) -> dict[str, str]:
    """{"causal": "true", "kv_heads": "2"} of what `told` gives; the texts as rows have them."""
    parts = (part.partition("=") for part in text.split() if text != DEFAULT)
    return {key: value or "true" for key, _, value in parts}


def number(text: str, name: str) -> int | None:
    """kv_heads or kv_tokens of what `told` gives; None where it has none, or no number: anybody may edit a row."""
    found = parts_of(text).get(name, "")
    return int(found) if found.isdecimal() and len(found) < 16 else None


def sentence(text: str, *, h: int) -> str:
    """What `told` gives as a sentence for a caption: which tokens a token attends to, and with how many heads."""
    parts = parts_of(text)
    causal = "Causal: token i attends to tokens up to i; no other mask" if "causal" in parts else "No causal mask"
    causal += ", no dropout." if "causal" in parts else ", no other mask, no dropout."
    grouped = f"{h} heads of queries share {parts['kv_heads']} of keys and values." if "kv_heads" in parts else ""
    cross = f"Keys and values of {parts['kv_tokens']} other tokens." if "kv_tokens" in parts else ""
    return " ".join(filter(None, [causal, grouped, cross]))


def _told(options: Mapping[str, str]) -> str:
    parts = [name if name == "causal" else f"{name}={value}" for name, value in options.items()]
    return " ".join(parts) or DEFAULT

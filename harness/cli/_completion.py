"""What a shell offers after an option: the valid words, the last of a comma-separated list completed. No torch.

completing("phase")("forward,b")                     # ['forward,backward']
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence


def completing(option: str) -> Callable[[str], list[str]] | None:
    """The function that completes an option's value; None where any text may stand."""
    if option not in ("attention", "dtype", "phase", "scope", "metrics", "device"):
        return None

    def complete(incomplete: str) -> list[str]:
        before, comma, word = incomplete.rpartition(",")
        named = before.split(",")
        return [f"{before}{comma}{value}" for value in _values(option) if value.startswith(word) and value not in named]

    return complete


def _values(option: str) -> Iterable[str]:
    if option == "attention":
        return _attentions()
    from harness.store.record import DTYPES, PHASES, SCOPES, UNITS

    valid: dict[str, Sequence[str]] = {
        "dtype": ("auto", *DTYPES), "phase": PHASES, "scope": SCOPES, "metrics": tuple(UNITS),
        "device": ("auto", "cpu", "cuda"),
    }  # fmt: skip
    return valid[option]


def _attentions() -> list[str]:
    """Variants and their backends where an earlier command wrote down what is here; else the built-in ones, by file."""
    from importlib.util import find_spec
    from pathlib import Path

    from harness.cases.catalogue import cached

    found = cached([], compute=False)
    if found is None:
        folders = getattr(find_spec("attentions"), "submodule_search_locations", None) or []
        files = sorted(file for folder in folders for file in Path(folder, "variants").glob("[!_]*.py"))
        return [file.stem for file in files]
    entries = found["attentions"].items()
    return [name for variant, entry in entries for name in (variant, *(f"{variant}:{b}" for b in entry["backends"]))]

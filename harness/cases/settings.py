"""Options of variants in a sweep: `anchor.init=paper,sharp`, where several values are an axis. No torch.

parsed({"anchor.init": "paper,sharp"})           # {"anchor.init": ("paper", "sharp")}
values('"1,2",3')                                # ("1,2", "3"): a value that holds a comma stands in quotes
chosen(sweep.set, catalogue, ["anchor"])         # {"anchor": [{"init": "paper"}, {"init": "sharp"}]}
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from harness.errors import UsageError, brief, unknown
from harness.store.problem import PROBLEM_KEYS
from harness.store.record import MODEL_KEYS, alike

Settings = Mapping[str, Sequence[str]]


def values(text: str) -> tuple[str, ...]:
    """The values of a text, apart at commas as in CSV. Raises ValueError for a quote that does not end."""
    if any(c in text for c in "\n\r\0"):
        return (text,)  # whoever takes it for an option says what is wrong with it
    try:
        found = next(csv.reader([text], strict=True, skipinitialspace=True), [])
    except csv.Error as error:
        raise ValueError(
            f"{brief(repr(text))} cannot be read: {error}; a value that holds a comma or a quote stands in quotes as "
            'in CSV, such as "1,2"'
        ) from None
    return tuple(dict.fromkeys(word.strip() for word in found)) or ("",)


def written(several: Sequence[str]) -> str:
    """The text that `values` reads back."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(several)
    return out.getvalue() if any(several) else ""


def pairs(texts: Iterable[str]) -> dict[str, list[str]]:
    """The words of `--set`; a key given again is an axis too. Raises UsageError for what is no variant.option=value."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set takes variant.option=value, such as anchor.init=paper, not {brief(text)!r}")
        try:
            found.setdefault(key.strip(), []).extend(values(value.strip()))
        except ValueError as error:
            raise UsageError(f"--set {key.strip()}: {error}") from None
    return found


def parsed(given: Any) -> dict[str, tuple[str, ...]]:
    """What a sweep's `set` holds: a text is apart at its commas, an entry of a list is one value. Raises ValueError."""
    if not isinstance(given, Mapping):
        raise ValueError(f"set takes variant.option = value pairs, not {brief(repr(given))}")
    found: dict[str, tuple[str, ...]] = {}
    for key, value in given.items():
        if str(key).count(".") != 1 or not all(str(key).split(".")):
            raise ValueError(f"{brief(repr(key))} is not of the form variant.option, such as anchor.init")
        if isinstance(value, Mapping):
            raise ValueError(f"{key} takes a value or a list of values, not {brief(repr(value))}")
        listed = isinstance(value, list | tuple)
        several = [_text(one) for one in value] if listed else values(_text(value))
        if not several:
            raise ValueError(f"{key} is an empty list; leave it out for its default")
        found[str(key)] = tuple(dict.fromkeys(several))
    return found


def typed(several: Sequence[str]) -> str | list[str]:
    """As a file holds them: one value as a text, where that is read back as it is; else a list."""
    try:
        return several[0] if values(several[0]) == tuple(several) else list(several)
    except ValueError:
        return list(several)


def stated(given: Settings, defaults: Mapping[str, Mapping[str, str]]) -> dict[str, Sequence[str]]:
    """What is set without the options that have one value, their default (harness.cases.catalogue.defaults)."""
    kept = {}
    for key, several in given.items():
        variant, option = key.split(".")
        usual = defaults.get(variant, {}).get(option)
        if len(several) > 1 or usual is None or not alike(several[0], usual):
            kept[key] = several
    return kept


def chosen(
    given: Settings, catalogue: Mapping[str, Any], asked: Sequence[str], *, scope: Sequence[str] = (), most: int
) -> dict[str, list[dict[str, str]]]:  # fmt: skip
    """The options of each case that a variant has, by variant. Raises UsageError for what does not exist, and beyond
    `most` cases."""
    held: dict[str, dict[str, Sequence[str]]] = {name.partition(":")[0]: {} for name in asked}
    for key, several in given.items():
        variant, option = key.split(".")
        if variant not in catalogue:
            raise UsageError(f"--set {key}: " + unknown("attention", variant, catalogue))
        if option in PROBLEM_KEYS:
            raise UsageError(f"--set {key}: {option} is asked of every variant; give --{option.replace('_', '-')}")
        if option not in catalogue[variant]["options"]:
            raise UsageError(f"--set {key}: " + unknown(f"option of {variant}", option, catalogue[variant]["options"]))
        if variant not in held:
            raise UsageError(f"--set {key}: {variant} is not part of this sweep; add it to --attention")
        for value in several:
            if any(c in value for c in ";\n\r\0"):
                raise UsageError(f"--set {key}: {value!r} holds a ';' or a line break")
        if option in MODEL_KEYS and "model" in scope:
            raise UsageError(f"--set {key}: {option} is the model's own in scope model; measure it in another scope")
        held[variant][option] = several
    for variant, options in held.items():
        if (count := math.prod(map(len, options.values()))) > most:
            raise UsageError(f"--set: the options of {variant} multiply to {count} cases; at most {most}")
    return {
        variant: [dict(zip(options, one, strict=True)) for one in product(*options.values())]
        for variant, options in held.items()
    }


def _text(value: Any) -> str:
    """A value as it would be typed: True as true."""
    return str(value).lower() if isinstance(value, bool) else str(value)

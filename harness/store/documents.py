"""JSON and TOML that somebody else may have written, read within limits that no document of ours comes near. No torch.

document = parse_json(data)            # Damaged, a ValueError, says in a few words what is wrong with it
document = parse_toml(data)
if wrong := misfit(document, {"schema": int, "sessions": [{"wall_s": float}]}): ...     # "sessions is 3, not a list"
torch = part(document, "torch")        # {} where that is no object

Without limits a few kilobytes take gigabytes (Python's TOML reader keeps every prefix of a dotted key), the stack, or
minutes (whole numbers of a million digits). Texts leave here as any encoding can write them: half a surrogate pair is
replaced.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from harness.errors import brief

MOST_BYTES = 1 << 26
MOST_TOML_BYTES = 1 << 18
DEEPEST = 64
MOST_DIGITS = 40
HALF = re.compile("[\ud800-\udfff]")
STRING = re.compile(rb'"[^"]*"')
BRACKETS = b'"[]{}'
ELSE = bytes(set(range(256)) - set(BRACKETS))
DEEP_KEY = re.compile(r"""(?<![\w.-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){16}""")
LONG_NUMBER = re.compile(r"\d[\d_]{400}|0[xob][0-9A-Fa-f_]{400}")
NAMES = {
    int: "a whole number", float: "a number", str: "a text", dict: "an object", list: "a list", bool: "true or false",
}  # fmt: skip


class Damaged(ValueError):
    """The text is not what it should be; the message is a part of a sentence, without the file's name."""


def parse_json(data: bytes, *, most: int = MOST_BYTES, finite: bool = True, halves: bool = False) -> Any:
    """The document. Raises Damaged.

    finite: refuse NaN and what is beyond a float; else they are the reader's to find. halves: leave half surrogate
    pairs, as which Python tells a file's name that is not UTF-8.
    """
    _check_size(data, most)
    if _is_deep(data):
        raise Damaged(f"it nests more than {DEEPEST} deep")
    try:
        hooks: dict[str, Any] = {"parse_float": _real, "parse_constant": _constant} if finite else {}
        document = json.loads(data.decode("utf-8-sig"), parse_int=_whole, **hooks)
    except RecursionError:
        raise Damaged(f"it nests more than {DEEPEST} deep") from None
    except ValueError as error:
        raise error if isinstance(error, Damaged) else Damaged(brief(str(error), 160)) from None
    return _encodable(document) if b"\\u" in data and not halves else document


def parse_toml(data: bytes) -> dict[str, Any]:
    """The document. Raises Damaged."""
    _check_size(data, MOST_TOML_BYTES)
    try:
        text = data.decode("utf-8-sig")
        if DEEP_KEY.search(text):
            raise Damaged("a key nests more than 16 deep")
        if LONG_NUMBER.search(text):
            raise Damaged("a number has more than 400 digits")
        return tomllib.loads(text)
    except RecursionError:
        raise Damaged("it nests too deep") from None
    except ValueError as error:
        raise error if isinstance(error, Damaged) else Damaged(brief(str(error), 160)) from None


def part(document: Any, name: str) -> dict[str, Any]:
    """A key of a document that anybody may have written; {} where it holds something else."""
    found = document.get(name) if isinstance(document, Mapping) else None
    return found if isinstance(found, dict) else {}


def misfit(value: Any, shape: Any, where: str = "") -> str:
    """How a value differs from a shape; empty where it does not.

    A shape is a type (object: anything), [shape] for a list, {"key": shape} for an object whose keys may be missing and
    may be more, {str: shape} for any keys, (shape, None) for it or null. A float may be a whole number, and is finite.
    """
    name = where or "it"
    if shape is object or (isinstance(shape, tuple) and value is None):
        return ""
    if isinstance(shape, tuple):
        return misfit(value, shape[0], where)
    kind = type(shape) if isinstance(shape, list | dict) else shape
    accepted: Any = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        return f"{name} is {brief(value)}, not {NAMES[kind]}"
    held: Any = value
    if isinstance(shape, list):
        told = (misfit(each, shape[0], f"{where}[{at}]") for at, each in enumerate(held))
    elif isinstance(shape, Mapping):
        keys = held if str in shape else [key for key in shape if key in held]
        told = (misfit(held[key], shape[str if str in shape else key], _joined(where, key)) for key in keys)
    else:
        return "" if kind is not float or math.isfinite(held) else f"{name} is {held}"
    return next(filter(None, told), "")


def _joined(where: str, key: object) -> str:
    return f"{where}.{brief(key)}" if where else brief(key)


def _check_size(data: bytes, most: int) -> None:
    if len(data) > most:
        raise Damaged(f"it has {len(data)} bytes; at most {most} are read")


def _is_deep(data: bytes) -> bool:
    """Whether brackets nest more than DEEPEST deep, found at the speed of `bytes.replace`: documents have gigabytes.

    What is outside strings and no bracket goes, then the innermost pairs, DEEPEST times; a few open ones that are left
    are the parser's to tell.
    """
    if data.count(b"[") + data.count(b"{") <= DEEPEST:
        return False
    left = data.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, ELSE)
    left = STRING.sub(b"", left.replace(b'""', b""))
    for _ in range(DEEPEST):
        left = left.replace(b"[]", b"").replace(b"{}", b"")
        if not left:
            return False
    return len(left) > DEEPEST


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise Damaged(f"a number has {len(text)} digits")
    return int(text)


def _real(text: str) -> float:
    value = float(text) if len(text) <= 10 * MOST_DIGITS else math.inf
    if not math.isfinite(value):
        raise Damaged(f"the number {brief(text, 40)} is beyond what a float holds")
    return value


def _constant(text: str) -> float:
    raise Damaged(f"{text} is no number")


def _encodable(value: Any) -> Any:
    """The document with half surrogate pairs replaced, which no encoding can write."""
    if isinstance(value, str):
        return HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [_encodable(each) for each in value]
    if isinstance(value, dict):
        return {HALF.sub("\ufffd", key): _encodable(each) for key, each in value.items()}
    return value

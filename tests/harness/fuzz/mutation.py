"""Changes of bytes as a fuzzer makes them: flipped, cut, doubled, spliced, and given what parsers trip over.

changed(data, [("flip", 0.5, 1, b"")])                   # by hand, or by Hypothesis
mutated(random.Random(7), [one, other])                  # by chance: hundreds of thousands of them
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any

Change = tuple[str, float, int, bytes]

KINDS = ("flip", "insert", "delete", "double", "cut", "trip", "number", "swap", "many", "string")
TRIPS = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r", b"\n", b"\n\n", b"\r\n", b'"', b'""', b",", b";",
    b"=", b"'", b"\\", b"\\u0000", b"\\ud800", b"NaN", b"nan", b"inf", b"-inf", b"1e999", b"-1", b"0", b"-0.0",
    b"9" * 40, b"9" * 500, b"9" * 5000, b"1e-400", b"9223372036854775808", b"18446744073709551616", b"0x" + b"f" * 500,
    b"null", b"None", b"true", b"[]", b"{}", b"[[", b"]]", b"{", b"}", b'{"a":1}', b"[" * 200, b"a." * 200,
    b"\xc2\xa0", b"\xd9\xa3", b"..", b"k", b"../../x", b"=1+1", b"\xe2\x80\xae", b"\x1b[2J", b"<script>", b"%s", b"{0}",
    b"\t", b" ", b"x" * 300, b"x" * 70_000,
)  # fmt: skip
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
STRING = re.compile(rb'"[^"\n]{0,60}"')
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, 10**30, 10**400, 0.5, -0.0, 1e308, "", "a", "x" * 300, "\ud800",
    [], {}, [1], ["a"], [[]], {"a": 1}, {"": None}, [None] * 3,
)  # fmt: skip


def changed(data: bytes, changes: Sequence[Change]) -> bytes:
    """The bytes after each change in turn: its kind, the place as a share of them, a number and a text."""
    for kind, share, number, text in changes:
        at = int(share * len(data))
        if kind == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ (number or 1)]) + data[at + 1 :]
        elif kind == "insert":
            data = data[:at] + bytes([number]) + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + 1 + number % 40 :]
        elif kind == "double":
            data = data[:at] + data[at : at + 1 + number] * 2 + data[at + 1 + number :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "trip":
            data = data[:at] + text + data[at:]
        elif kind == "number":
            data = _replaced(NUMBER, data, at, text)
        elif kind == "string":
            data = _replaced(STRING, data, at, text)
        elif kind == "swap":
            lines = data.split(b"\n")
            one, other = at % len(lines), number % len(lines)
            lines[one], lines[other] = lines[other], lines[one]
            data = b"\n".join(lines)
        elif kind == "many":
            data = data[:at] + data[at : at + 1 + number % 12] * (200 + 20 * number) + data[at:]
    return data


def mutated(draw: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds with one to six changes; of a JSON document now and then one value for another."""
    data = draw.choice(seeds)
    if data[:1] in (b"{", b"[") and draw.random() < 0.5:
        return _in_document(draw, data)
    if draw.random() < 0.05:
        other = draw.choice(seeds)
        data = data[: draw.randrange(len(data) + 1)] + other[draw.randrange(len(other) + 1) :]
    changes = [
        (draw.choice(KINDS), draw.random(), draw.randrange(256), draw.choice(TRIPS)) for _ in range(draw.randint(1, 6))
    ]
    return changed(data, changes)


def _replaced(pattern: re.Pattern[bytes], data: bytes, at: int, text: bytes) -> bytes:
    found = pattern.search(data, at) or pattern.search(data)
    return data if found is None else data[: found.start()] + text + data[found.end() :]


def _in_document(draw: random.Random, data: bytes) -> bytes:
    """A value anywhere in the document replaced, removed or put somewhere else."""
    try:
        document = json.loads(data)
    except ValueError:
        return data
    for _ in range(draw.randint(1, 3)):
        places = list(_places(document))
        if not places:
            break
        holder, key = draw.choice(places)
        kind = draw.random()
        if kind < 0.15:
            del holder[key]
        elif kind < 0.3:
            other, name = draw.choice(places)
            holder[key] = other[name] if other is not holder else draw.choice(VALUES)
        else:
            holder[key] = draw.choice(VALUES)
        try:
            data = json.dumps(document).encode()
        except (ValueError, RecursionError):  # a value was put inside itself
            return data
    return data


def _places(document: Any, deep: int = 12) -> Any:
    keys = document if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    for key in [*keys] if deep else []:
        yield document, key
        yield from _places(document[key], deep - 1)

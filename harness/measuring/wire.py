"""Requests of a worker and their answers as lines of JSON: the one way into a worker and out of it. No torch.

line = encode(Free(device="cpu"))                    # b'{"operation": "free", "device": "cpu"}\\n'
request = decode(line)                               # Free(device='cpu'), in the worker
line = encode_answer(request, 8_000_000_000)
decode_answer(request, line)                         # 8000000000; raises UsageError, Failure
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from pydantic import TypeAdapter

from harness.errors import Failure, UsageError
from harness.measuring.requests import Answer, Request


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Instead of an answer: the request names what does not exist or cannot be."""

    usage: str


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Instead of an answer: the worker could not."""

    fault: str


def operation(kind: type[Request[Any]]) -> str:
    """A request's name in messages and on the line: `measure_part` of MeasurePart."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", kind.__name__).lower()


def encode(request: Request[Any]) -> bytes:
    """The request as one line."""
    kind = type(request)
    return _line({"operation": operation(kind), **_adapter(kind).dump_python(request)})


def decode(line: bytes | str) -> Request[Any]:
    """The inverse of `encode`. Raises ValueError for anything else."""
    document = json.loads(line)
    name = document.pop("operation")
    if name not in _kinds():
        raise ValueError(f"unknown operation {name!r}; valid: {', '.join(sorted(_kinds()))}")
    return _adapter(_kinds()[name]).validate_python(document)


def encode_answer(request: Request[Any], answer: Any) -> bytes:
    """What the request gave, or the Usage or Fault in its place, as one line."""
    if isinstance(answer, Usage | Fault):
        return _line(vars(answer))
    return _line({"answer": _answers(type(request)).dump_python(answer)})


def decode_answer(request: Request[Answer], line: bytes | str) -> Answer:
    """The inverse of `encode_answer`. Raises UsageError for Usage, Failure for Fault, ValueError for no answer."""
    document = json.loads(line)
    if not isinstance(document, dict) or not document.keys() & {"usage", "fault", "answer"}:
        raise ValueError(f"{line!r} is no answer")
    if "usage" in document:
        raise UsageError(document["usage"])
    if "fault" in document:
        raise Failure(f"the measuring process failed in '{operation(type(request))}': {document['fault']}")
    return _answers(type(request)).validate_python(document["answer"])


def _line(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"


@cache
def _kinds() -> dict[str, type[Request[Any]]]:
    return {operation(kind): kind for kind in Request.__subclasses__()}


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _answers(kind: type[Request[Any]]) -> TypeAdapter[Any]:
    """Of what `kind` is a Request[...] of."""
    return _adapter(get_args(kind.__orig_bases__[0])[0])  # type: ignore[attr-defined]

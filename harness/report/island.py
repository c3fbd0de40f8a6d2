"""Columns as one block of text that a page carries: gzipped, base64, read back by page/data.js without parsing rows.

    text = pack({"rows": {"n": codes([256, 1024]), "value": numbers([0.5, 1.5])}}, about={"title": "…"})

The block: the header's length (uint32), the header (JSON, which says where each array lies), then the arrays, each
at a multiple of 8 bytes. Base64 has no `<`, so that no cell can end the script element it stands in.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import pandas

WIDTHS = ((1 << 8, "uint8"), (1 << 16, "uint16"), (1 << 32, "uint32"))
ALIGNED = 8


@dataclass(frozen=True)
class Column:
    """One column: an array, and for codes the distinct values that it points into."""

    array: numpy.ndarray
    values: list[Any] | None = None


def codes(cells: Iterable[Any]) -> Column:
    """A column of text or whole numbers as places in the list of its distinct values; missing ones are null."""
    series = pandas.Series(cells, dtype=object)
    places, values = pandas.factorize(series, use_na_sentinel=False)
    kind = next(name for limit, name in WIDTHS if len(values) <= limit)
    return Column(places.astype(kind), [_plain(value) for value in values])


def numbers(cells: Iterable[Any]) -> Column:
    """A column of real numbers, exactly; missing ones are NaN."""
    return Column(numpy.asarray(pandas.Series(cells, dtype="float64")))


def pack(columns: Mapping[str, Column], *, about: Mapping[str, Any]) -> str:
    """The text of the island: base64 of the gzipped block. Equal data give equal text."""
    table, parts, at = {}, [], 0
    for name, column in columns.items():
        data = column.array.astype(column.array.dtype.newbyteorder("<")).tobytes()
        table[name] = {"type": column.array.dtype.name, "at": at, "length": len(column.array), "values": column.values}
        parts.append(data + bytes(-len(data) % ALIGNED))
        at += len(parts[-1])
    header = json.dumps({"columns": table, **about}, allow_nan=False, separators=(",", ":")).encode()
    header += b" " * (-(len(header) + 4) % ALIGNED)
    return squeeze(len(header).to_bytes(4, "little") + header + b"".join(parts))


def squeeze(data: bytes) -> str:
    """Bytes as base64 of gzip, the same every time."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else None if pandas.isna(value) else int(value)

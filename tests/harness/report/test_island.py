"""The data island reads back what went in, whatever it is, and can never end the element that it stands in."""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
from typing import Any

import numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.report.island import codes, numbers, pack


def unpack(text: str) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """What page/data.js does: (columns, about)."""
    block = gzip.decompress(base64.b64decode(text))
    length = int.from_bytes(block[:4], "little")
    header = json.loads(block[4 : 4 + length])
    start = 4 + length
    found = {}
    for name, facts in header.pop("columns").items():
        assert (start + facts["at"]) % 8 == 0
        array = numpy.frombuffer(block, facts["type"], facts["length"], start + facts["at"])
        values = facts["values"]
        found[name] = [values[code] for code in array] if values is not None else array.tolist()
    return found, header


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.text(), st.integers(-5, 2**40)), st.floats()), max_size=40),
    st.dictionaries(st.text(), st.text(), max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_what_goes_in_comes_out(rows: list[tuple[Any, float]], about: dict[str, str]) -> None:
    text = pack({"a": codes([a for a, _ in rows]), "x": numbers([x for _, x in rows])}, about={"more": about})
    columns, header = unpack(text)
    assert columns["a"] == [a for a, _ in rows]
    assert all(x == y or (math.isnan(x) and math.isnan(y)) for x, (_, y) in zip(columns["x"], rows, strict=True))
    assert header == {"more": about}
    assert re.fullmatch(r"[A-Za-z0-9+/]*=*", text)
    assert text == pack({"a": codes([a for a, _ in rows]), "x": numbers([x for _, x in rows])}, about={"more": about})


def test_codes_take_the_narrowest_integers() -> None:
    kinds = [codes(range(count)).array.dtype.name for count in (256, 257, 65536, 65537)]
    assert kinds == ["uint8", "uint16", "uint16", "uint32"]
    assert (len(codes([]).array), codes([]).values) == (0, [])

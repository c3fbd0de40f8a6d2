"""Rows read back from a CSV file of ours that anybody may have edited: a bad one is left out, counted and named.

    frame = read_rows(path, {"step": WHOLE, "value": REAL})   # pandas; frame.attrs["left_out"]: what the others lack

A row is a line: what one line lacks cannot reach the next. A torn last line is left out without a word, as a run that
is being measured has one.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import brief, reason
from harness.store import opening
from harness.store.csvfile import StoreError, cells, check_columns

if TYPE_CHECKING:
    import pandas

LEFT_OUT = "left_out"
LARGEST = 1 << 53  # what a float, and a reader in JavaScript, still tells from its neighbour


class RowsLeftOut(UserWarning):
    """Some rows of a file could not be read; the others were."""


@dataclass(frozen=True)
class Kind:
    """What a column holds: how a cell is read (ValueError: what it is not), and the frame's dtype."""

    read: Callable[[str], Any]
    dtype: Any


def _whole(text: str, least: int = 0) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 16 or not least <= int(text) <= LARGEST:
        raise ValueError(f"no whole number from {least} to 2^53")
    return int(text)


def _real(text: str) -> float:
    """As Python reads it: exactly, whichever way this version of pandas does."""
    try:
        return float(text) if text else math.nan
    except ValueError:
        raise ValueError("no number") from None


TEXT, REAL, WHOLE = Kind(str, str), Kind(_real, "float64"), Kind(_whole, "int64")
SEED = Kind(_whole, "Int64")
COUNT = Kind(lambda text: _whole(text, 1), "Int64")
MAYBE = Kind(lambda text: _whole(text) if text else None, "Int64")


def read_rows(
    path: Path, kinds: Mapping[str, Kind], *, links: bool = False, check: Callable[[dict[str, str]], str] | None = None
) -> pandas.DataFrame:
    """The rows as a frame; a file that is not there has none. Raises StoreError for foreign columns.

    check: what else is wrong with a row's cells by name, or "". links: the user named this very file.
    """
    import pandas

    good, wrong = _parsed(path, tuple(kinds), [kind.read for kind in kinds.values()], links=links, check=check)
    columns = zip(*good, strict=True) if good else [()] * len(kinds)
    series = {name: pandas.Series(values, dtype=kinds[name].dtype) for name, values in zip(kinds, columns, strict=True)}
    frame = pandas.DataFrame(series)
    frame.attrs[LEFT_OUT] = tuple(wrong)
    if wrong:
        rest = f"; and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        told = f"{path}: {len(wrong)} of {len(wrong) + len(good)} rows left out: {wrong[0]}{rest}"
        warnings.warn(told, RowsLeftOut, stacklevel=2)
    return frame


def _parsed(
    path: Path, names: Sequence[str], readers: Sequence[Callable[[str], Any]], *, links: bool,
    check: Callable[[dict[str, str]], str] | None,
) -> tuple[list[tuple[Any, ...]], list[str]]:  # fmt: skip
    """The values of every good row, and a sentence for every other."""
    try:
        data = opening.read(path, links=links) if opening.present(path) else b""
    except OSError as error:
        raise StoreError(f"cannot read {path}: {reason(error)}") from None
    check_columns(path, data[: data.find(b"\n") + 1] or data[: 1 << 16], names, size=len(data))
    good, wrong = [], []
    for number, line in enumerate(data.split(b"\n")[1:-1], 2):
        found = cells(line)
        if len(found) != len(names):
            wrong.append(
                f"line {number} has {len(found)} cells, not {len(names)}" if found else f"line {number} is no CSV"
            )
            continue
        try:
            values = tuple([read(cell) for read, cell in zip(readers, found, strict=True)])
        except ValueError:
            wrong.append(f"line {number}: {_fault(names, readers, found)}")
            continue
        fault = check(dict(zip(names, found, strict=True))) if check else ""
        if fault:
            wrong.append(f"line {number}: {fault}")
        else:
            good.append(values)
    return good, wrong


def _fault(names: Sequence[str], readers: Sequence[Callable[[str], Any]], found: Sequence[str]) -> str:
    """`n is 'x', no whole number …` of the first cell that cannot be read."""
    for name, read, cell in zip(names, readers, found, strict=True):
        try:
            read(cell)
        except ValueError as error:
            return f"{name} is {brief(cell, 40)!r}, {error}"
    return "cannot be read"


def is_there(path: Path) -> bool:
    """Whether a file of a run is there to be read. Raises StoreError where something else is in its place."""
    try:
        if not opening.present(path):
            return False
        os.close(opening.opened(path))
    except OSError as error:
        raise StoreError(f"cannot read {path}: {reason(error)}") from None
    return True

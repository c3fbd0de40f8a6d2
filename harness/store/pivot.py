"""A run turned into tables as data: rows × columns of cells of one metric. No torch.

    for table in pivot(labelled(store.read(folder)), "latency"):     # one a machine, device, scope, phase, dtype, shape
        document.append(as_json(table))

A table holds like with like: what is neither its rows nor its columns is its setting, never averaged over.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.store import problem
from harness.store.record import DTYPES, PHASES, cell
from harness.store.selection import FILE, ORDER, PANEL, Frame, metric_rows, place, printable, settings, usual

AXES = ("attention", "m", "n", *PANEL, *FILE)
WORDS = {"batch": "b", "heads": "h", "head_dim": "d"}  # axes by the names of a sweep


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure, or the status and note that stand in its place. switched: by another backend than most of its row."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    status: str
    note: str
    backend: str = ""
    switched: bool = False

    @property
    def half_width(self) -> float | None:
        """Half the interval relative to the value, or None without an interval."""
        if not self.value or self.ci_low is None or self.ci_high is None:
            return None
        return (self.ci_high - self.ci_low) / 2 / abs(self.value)


@dataclass(kw_only=True)
class Table:
    """Cells by (row, column); none where the run holds no such case. A row is a value of each axis in rows_by."""

    metric: str
    unit: str
    setting: dict[str, Any]
    rows_by: tuple[str, ...]
    columns_by: str
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    columns: list[Any] = field(default_factory=list)
    cells: dict[tuple[tuple[Any, ...], Any], Cell] = field(default_factory=dict)


def pivot(frame: Frame, metric: str, *, rows_by: Sequence[str] = ("attention",), columns_by: str = "n") -> list[Table]:
    """The tables of a metric. frame: from harness.store.selection.labelled; rows_by and columns_by: of AXES.

    `attention` stands for variant:backend. m joins the rows unless it is named, since its meaning hangs on the variant.
    """
    rows_by = (*rows_by, *(["m"] if "m" not in (*rows_by, columns_by) else []))
    frame = metric_rows(frame, metric)
    names = list(zip(frame["attention"], frame["label"], strict=True))
    frame = frame.assign(m=frame["m"].fillna(-1), attention=names)  # a variant sorts by its name, then its label
    tables = []
    for setting, group in settings(frame, [name for name in AXES if name not in (*rows_by, columns_by)]):
        table = Table(
            metric=metric, unit=str(group["unit"].iloc[0]), rows_by=rows_by, columns_by=columns_by,
            setting={name: shown(name, value) for name, value in setting.items()},
        )  # fmt: skip
        rows = sorted(set(zip(*(group[name] for name in rows_by), strict=True)), key=lambda row: _order(rows_by, row))
        columns = sorted(set(group[columns_by]), key=lambda column: _order([columns_by], [column]))
        table.rows = [_shown(rows_by, row) for row in rows]
        table.columns = [shown(columns_by, column) for column in columns]
        for row in group.to_dict("records"):
            where = _shown(rows_by, [row[name] for name in rows_by]), shown(columns_by, row[columns_by])
            table.cells[where] = Cell(
                value=_number(row["value"]), ci_low=_number(row["ci_low"]), ci_high=_number(row["ci_high"]),
                status=row["status"], note=row["note"], backend=row["backend"],
            )  # fmt: skip
        if columns_by != "attention":
            _mark_switches(table)
        tables.append(table)
    return tables


def _mark_switches(table: Table) -> None:
    """The bare name of a variant may take another backend at another size; such a figure is no growth."""
    for row in table.rows:
        own = {(row, c): cell for c in table.columns if (cell := table.cells.get((row, c))) and cell.value is not None}
        if len({cell.backend for cell in own.values()}) > 1:
            most = usual([cell.backend for cell in own.values()])
            table.cells |= {at: replace(cell, switched=cell.backend != most) for at, cell in own.items()}


def as_json(table: Table) -> dict[str, Any]:
    """A table as a JSON object: values unrounded, in the run's unit, null without one."""
    by = table.columns_by
    rows = [
        {
            **dict(zip(table.rows_by, row, strict=True)),
            "cells": [{by: c, **vars(table.cells[row, c])} for c in table.columns if (row, c) in table.cells],
        }
        for row in table.rows
    ]
    about = {"metric": table.metric, "unit": table.unit, "setting": table.setting}
    return {**about, "columns_by": by, "columns": table.columns, "rows": rows}


def as_csv(tables: Sequence[Table], *, intervals: bool = False) -> str:
    """Tables of one shape as one CSV: their columns side by side, full precision, a status where there is no value.

    intervals: a column `… low` and `… high` beside each, the ends of the 95 % interval.
    """
    first = tables[0]
    columns = list(dict.fromkeys(column for table in tables for column in table.columns))
    if all(isinstance(column, int) for column in columns):
        columns.sort()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    titles = [f"{first.columns_by}={'' if column is None else column}" for column in columns]
    if intervals:
        titles = [text for title in titles for text in (title, f"{title} low", f"{title} high")]
    writer.writerow(["metric", "unit", *first.setting, *first.rows_by, *titles])
    for table in tables:
        for row in table.rows:
            found = [table.cells.get((row, column)) for column in columns]
            values = [text for c in found for text in _texts(c, intervals=intervals)]
            left = [table.metric, table.unit, *table.setting.values(), *row]
            writer.writerow([*map(cell, left), *values])
    return out.getvalue()


def _texts(one: Cell | None, *, intervals: bool) -> list[str]:
    """A cell of a table as cells of a CSV."""
    value = "" if one is None else cell(one.status if one.value is None else one.value)
    ends = (None, None) if one is None else (one.ci_low, one.ci_high)
    return [value, *map(cell, ends)] if intervals else [value]


def shown(name: str, value: Any) -> Any:
    """A value of an axis as text or a plain number; None for the m of a variant without one."""
    if name == "attention":
        return printable(value[1])
    if isinstance(value, str):
        return value
    return None if name == "m" and value < 0 else int(value)


def _shown(names: Sequence[str], values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(shown(name, value) for name, value in zip(names, values, strict=True))


def _order(names: Sequence[str], values: Sequence[Any]) -> tuple[Any, ...]:
    orders = {"phase": PHASES, "dtype": DTYPES}
    return tuple(
        (*place(value[0], ORDER), value[1]) if name == "attention"
        else problem.order(value) if name == "problem"
        else place(value, orders[name]) if name in orders
        else value
        for name, value in zip(names, values, strict=True)
    )  # fmt: skip


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None

"""A pivot as a table of a document: Markdown, LaTeX (booktabs), HTML, cells as in the terminal. No torch.

print(markdown(table))      # | variant | m | n=1024 | … with `1.23 ±1.2%`, or the status where there is no value
"""

from __future__ import annotations

import html as web
import re
from collections.abc import Iterable
from dataclasses import dataclass

from harness.store.pivot import Table
from harness.store.selection import printable
from harness.store.table import cell_text, column_title, heading, row_title, scale_of, switches

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "·": r"$\cdot$", "…": r"\ldots{}",
    "²": r"$^2$", "≥": r"$\geq$", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


@dataclass(frozen=True)
class Words:
    """A table in words: caption, titles of its columns (the first `names` name the rows), cells and their notes."""

    caption: str
    titles: tuple[str, ...]
    names: int
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[tuple[str, ...], ...]


def words(table: Table) -> Words:
    """What the cells of a table say; where one has no value its status, with the reason as its note."""
    scale, unit = scale_of(table)
    rows, notes = [], []
    for row in table.rows:
        cells = [table.cells.get((row, column)) for column in table.columns]
        names = ["" if value is None else printable(str(value)) for value in row]
        rows.append((*names, *("" if cell is None else cell_text(cell, scale) for cell in cells)))
        notes.append((*[""] * len(names), *("" if cell is None else cell.note for cell in cells)))
    return Words(
        caption=" · ".join(filter(None, [heading(table, unit), switches(table)])), names=len(table.rows_by),
        rows=tuple(rows), notes=tuple(notes),
        titles=(*map(row_title, table.rows_by), *(column_title(table, column) for column in table.columns)),
    )  # fmt: skip


def markdown(table: Table, *, note: str = "") -> str:
    """The table under its caption, numbers to the right; below it a note on what it was measured on."""
    told = words(table)
    rule = ["---", *["---:"] * (len(told.titles) - 1)]
    grid = [_piped(map(_markdown, told.titles)), _piped(rule), *(_piped(map(_markdown, row)) for row in told.rows)]
    below = ["", *(f"_{_markdown(line)}_  " for line in note.splitlines())] if note else []
    return "\n".join([f"**{_markdown(told.caption)}**", "", *grid, *below]) + "\n"


def latex(table: Table, *, note: str = "") -> str:
    """A `table` with booktabs rules; the caption says what the figures hold for, with the note at its end."""
    told = words(table)
    caption = ". ".join([told.caption, *note.splitlines()]) + ("." if note else "")
    return "\n".join([
        r"\begin{table}", r"  \centering", rf"  \caption{{{_latex(caption)}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(told.titles) - 1)}}}", r"  \toprule", _row(told.titles), r"  \midrule",
        *map(_row, told.rows), r"  \bottomrule", r"  \end{tabular}", r"\end{table}",
    ]) + "\n"  # fmt: skip


def html(table: Table) -> str:
    """A <table> with its caption; a status tells its reason when pointed at."""
    told = words(table)
    head = "".join(f"<th>{web.escape(title)}</th>" for title in told.titles)
    body = []
    for texts, notes in zip(told.rows, told.notes, strict=True):
        cells = [
            f"<th>{web.escape(text)}</th>" if at < told.names
            else f"<td{f' title={chr(34)}{web.escape(note)}{chr(34)}' if note else ''}>{web.escape(text)}</td>"
            for at, (text, note) in enumerate(zip(texts, notes, strict=True))
        ]  # fmt: skip
        body.append(f"<tr>{''.join(cells)}</tr>")
    caption = f'<caption style="text-align:left">{web.escape(told.caption)}</caption>'
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _piped(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    return re.sub(r"[\\|*`<]|\b_|_\b", r"\\\g<0>", text)  # an underscore within a word is no emphasis


def _row(cells: Iterable[str]) -> str:
    return "  " + " & ".join(map(_latex, cells)) + r" \\"


def _latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)

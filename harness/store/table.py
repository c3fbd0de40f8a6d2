"""A run as tables in a terminal: variants down, token counts across, medians with their interval. No torch.

    print(comparison(store.read(folder)), end="")      # what `harness run` ends with
    print(render(pivot(frame, "flops"), width=80))     # tables of harness.store.pivot

A table wider than the terminal is split by columns into blocks; a value is never cut.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from harness.store import problem
from harness.store.contention import banner, count, reason
from harness.store.naming import brief
from harness.store.pivot import Cell, Table, pivot
from harness.store.selection import Frame, labelled, printable

PLAIN_WIDTH, NARROWEST = 100, 20
GAP = 2
MOST_REASONS = 8
DOUBTED, SWITCHED = " !", " *"
PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1.0, ""))
COLOURS = {
    "oom": "red", "timeout": "yellow", "error": "bold red", "unsupported": "bright_black", "unavailable": "bright_black"
}  # fmt: skip
PLAIN_LETTERS = str.maketrans({"±": "+/-", "·": "|", "─": "-", "…": "..", "²": "2", "≥": ">="})


def comparison(frame: Frame, *, metric: str = "latency", width: int | None = None, colour: bool | None = None) -> str:
    """The tables of a run's rows (from store.read) as text that ends with a newline; "" where nothing was tried.

    width: columns of the terminal; None asks it. colour: None means when stdout is a terminal, TERM is not dumb and
    NO_COLOR is not set.
    """
    return render(pivot(labelled(frame), metric), width=width, colour=colour)


def render(tables: Sequence[Table], *, width: int | None = None, colour: bool | None = None) -> str:
    """Tables as text: each with its heading and its blocks; at the end, once, why cells have no value."""
    from rich.console import Console
    from rich.text import Text

    width = max(NARROWEST, terminal_width() if width is None else width)
    colour = terminal_colour() if colour is None else colour
    out = io.StringIO()
    console = Console(
        file=out, width=10_000, force_terminal=colour, color_system="standard" if colour else None, no_color=not colour,
        highlight=False, markup=False, emoji=False, legacy_windows=False, force_jupyter=False,
    )  # fmt: skip
    told = [cell.note for table in tables for cell in table.cells.values() if cell.value is not None]
    for line in textwrap.wrap(banner(count(told), len(told), "figure"), width):
        console.print(Text(line, style="bold red"))
    for table in tables:
        scale, unit = scale_of(table)
        for line in textwrap.wrap(heading(table, unit), width, break_on_hyphens=False):
            console.print(Text(line, style="bold"))
        for grid in _blocks(table, scale, width):
            console.print(grid)
            console.print()
    for text in [*filter(None, map(switches, tables)), *_reasons(tables)]:
        for line in textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False):
            console.print(Text(line, style="bright_black"))
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().rstrip().splitlines())


def write(text: str) -> None:
    """Print text on stdout, in plainer letters where its encoding lacks some."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(PLAIN_LETTERS).encode(encoding, "replace").decode(encoding)
    sys.stdout.write(text)


def folded(line: str, indent: int) -> str:
    """A line as it is; on a terminal too narrow for it, several, those after the first set in by `indent`."""
    if not sys.stdout.isatty() or len(line) <= (width := terminal_width()):
        return line
    return textwrap.fill(
        line, max(NARROWEST, width), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False,
        drop_whitespace=True, replace_whitespace=False,
    )  # fmt: skip


def terminal_width() -> int:
    """The terminal's columns; COLUMNS or 100 where stdout is none."""
    return shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns


def terminal_colour() -> bool:
    """Whether stdout is a terminal that has colours and nobody asked to leave them out."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") not in ("", "dumb")


def _blocks(table: Table, scale: float, width: int) -> Iterator[Any]:
    """The table as rich tables, each as many columns as fit beside the row names."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table as Grid
    from rich.text import Text

    limit = max(12, min(44, width // 2))
    heads = [[_name(value, limit) for value in row] for row in table.rows]
    titles = [row_title(name) for name in table.rows_by]
    left = sum(
        max(map(cell_len, [title, *(head[at] for head in heads)])) + GAP for at, title in enumerate(titles)
    )  # fmt: skip
    texts = {where: cell_text(cell, scale) for where, cell in table.cells.items()}
    columns = [(column, column_title(table, column, limit=limit)) for column in table.columns]
    blocks: list[list[tuple[Any, str]]] = []
    used = width
    for column, title in columns:
        wide = max(map(cell_len, [title, *(texts.get((row, column), "") for row in table.rows)])) + GAP
        if not blocks or used + wide > width + GAP:
            blocks.append([])
            used = left
        used += wide
        blocks[-1].append((column, title))
    for block in blocks:
        grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
        for name, title in zip(table.rows_by, titles, strict=True):
            grid.add_column(Text(title), no_wrap=True, justify="left" if name == "attention" else "right")
        for _, title in block:
            grid.add_column(Text(title), no_wrap=True, justify="right")
        for row, head in zip(table.rows, heads, strict=True):
            cells = [(table.cells.get((row, column)), texts.get((row, column), "")) for column, _ in block]
            styled = [Text(text, style=COLOURS.get(cell.status, "") if cell else "") for cell, text in cells]
            grid.add_row(*map(Text, head), *styled)
        yield grid


def heading(table: Table, unit: str) -> str:
    """`latency (ms), median ±half its 95 % interval · forward · float32 · scope core · b=1 h=6 d=64 · cpu on EPYC`."""
    setting = dict(table.setting)
    interval = any(cell.half_width is not None for cell in table.cells.values())
    what = f"{table.metric} ({unit})" if unit not in ("", "1") else table.metric
    parts = [what + (", median ±half its 95 % interval" if interval else "")]
    parts += [str(setting.pop(name)) for name in ("attention", "phase", "dtype") if name in setting]
    parts += [f"scope {setting.pop('scope')}"] if "scope" in setting else []
    parts.append(" ".join(f"{name}={setting[name]}" for name in "bhdnm" if setting.get(name) is not None))
    parts.append("" if setting.get("problem", problem.DEFAULT) == problem.DEFAULT else str(setting["problem"]))
    parts.append(" on ".join(str(setting[name]) for name in ("device", "machine") if name in setting))
    return " · ".join(printable(part) for part in parts if part)


def switches(table: Table) -> str:
    """What the mark means: `* by another backend: anchor m=256 by chunked at n=16384, else by reference`."""
    told = []
    for row in table.rows:
        cells = [(c, cell) for c in table.columns if (cell := table.cells.get((row, c))) and cell.value is not None]
        marked: dict[str, list[str]] = {}
        for column, cell in cells:
            if cell.switched:
                marked.setdefault(cell.backend, []).append(column_title(table, column))
        if marked:
            most = next(cell.backend for _, cell in cells if not cell.switched)
            name = " ".join(
                str(value) if by == "attention" else f"{by}={value}"
                for by, value in zip(table.rows_by, row, strict=True) if value is not None
            )  # fmt: skip
            parts = [f"by {backend} at {', '.join(places)}" for backend, places in marked.items()]
            told.append(f"{name} {', '.join(parts)}, else by {most}")
    return printable(f"* by another backend: {'; '.join(told)}", limit=400) if told else ""


def cell_text(cell: Cell, scale: float) -> str:
    """`1.23 ±1.2%`, `1.234`, either with a `!` where the machine was not quiet and a `*` where another backend than its
    row's ran, or the status."""
    if cell.value is None:
        return cell.status
    half, mark = cell.half_width, (DOUBTED if reason(cell.note) else "") + (SWITCHED if cell.switched else "")
    if half is None:
        return _digits(cell.value / scale, 4) + mark
    return f"{_digits(cell.value / scale, 4 if half < 0.005 else 3)} ±{_percent(100 * half)}%{mark}"


def row_title(name: str) -> str:
    """What a column of row names is called."""
    return "variant" if name == "attention" else name


def column_title(table: Table, column: Any, *, limit: int = 120) -> str:
    """`n=4096`, or the name that stands for itself."""
    return f"{table.columns_by}={_name(column, limit)}" if isinstance(column, int) else _name(column, limit)


def _digits(value: float, count: int) -> str:
    """At least that many digits: 0.01230, 1.234, 123456, 1.234e-07."""
    size = abs(value)
    if size == 0:
        return "0"
    if not 1e-3 <= size < 1e7:
        return f"{value:.{count - 1}e}"
    return f"{value:.{max(0, count - 1 - math.floor(math.log10(size)))}f}"


def _percent(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 0.05 else "0.0"


def scale_of(table: Table) -> tuple[float, str]:
    """FLOP counts in the prefix that fits the smallest of them; everything else as it is stored."""
    values = [abs(cell.value) for cell in table.cells.values() if cell.value]
    if table.unit != "FLOP" or not values:
        return 1.0, table.unit
    scale, prefix = next((pair for pair in PREFIXES if min(values) >= pair[0]), PREFIXES[-1])
    return scale, f"{prefix}FLOP"


def _name(value: Any, limit: int) -> str:
    return "" if value is None else printable(str(value), limit=limit)


def _brief(notes: Sequence[str], status: str) -> str:
    """The first reason; of what is not there briefly, as the list has what is missing of each backend."""
    if status == "unavailable" and (told := brief(notes[0])) != notes[0]:
        return f"{told} (more in harness list)"
    return notes[0] + (f" (and {len(notes) - 1} more like it)" if len(notes) > 1 else "")


def _reasons(tables: Sequence[Table]) -> list[str]:
    """A line a variant and status: the first reason given, and how many others there are."""
    found: dict[tuple[str, str], list[str]] = {}
    for table in tables:
        at = table.rows_by.index("attention") if "attention" in table.rows_by else None
        across = table.columns_by == "attention"
        for (row, column), cell in table.cells.items():
            if cell.status != "ok":
                name = column if across else row[at] if at is not None else table.setting.get("attention", "")
                found.setdefault((str(name), cell.status), []).append(cell.note)
    lines = []
    for (name, status), notes in found.items():
        different = list(dict.fromkeys(note for note in notes if note))
        text = f"{name} {status}"
        if different:
            text += f": {_brief(different, status)}"
        lines.append(printable(text, limit=400))
    hidden = len(lines) - MOST_REASONS
    return [*lines[:MOST_REASONS], *([f"and {hidden} more reasons: --json has them all"] if hidden > 0 else [])]

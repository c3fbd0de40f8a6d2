"""The measured figures that README and docs quote, ONE FILE A PAGE: in which words, from which file, by which formula.

A file names its PAGE and has `quote(page)`, which says each sentence and table with the values as the CSV files have
them. Adding a page is adding a file here; `python scripts/quoted.py` compares, `--write` renews.

    page.say("The floor: {:.3f}.", page.rows("results/cpu/recall").one(metric="top1", attention="none", seed=0))
"""

from __future__ import annotations

import csv
import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from harness.store.pivot import Cell
from harness.store.table import cell_text

ROOT = Path(__file__).resolve().parents[2]
NUMBER = r"[-−+]?\d+(?:[.,\u00a0 ]\d+)*(?:e[-+]?\d+)?"
WORDS = r"[^|\n]+?"  # what `{!s}` stands for
MINUS = str.maketrans("-", "−")

Row = dict[str, str]


class Misquoted(Exception):
    """A page has no place that reads as its file here says, or several."""


@dataclass(frozen=True)
class Rows:
    """Rows of a CSV file, chosen by their columns: n=4096, m="", options=lambda text: …"""

    rows: tuple[Row, ...]
    source: str

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def where(self, **wanted: Any) -> Rows:
        """Those whose columns are as asked: equal as text, or accepted by a function, or among a tuple."""
        return Rows(tuple(row for row in self.rows if _meets(row, wanted)), self.source)

    def only(self, **wanted: Any) -> Row:
        """The one row that is as asked. Raises LookupError for none and for several."""
        found = self.where(**wanted).rows
        if len(found) != 1:
            raise LookupError(f"{self.source}: {len(found)} rows where {wanted}; one is meant")
        return found[0]

    def one(self, column: str = "value", **wanted: Any) -> float:
        """The number in a column of that one row."""
        return float(self.only(**wanted)[column])

    def all(self, column: str = "value", **wanted: Any) -> list[float]:
        """The numbers of a column, in the file's order. Raises LookupError for none."""
        found = [float(row[column]) for row in self.where(**wanted) if row[column]]
        if not found:
            raise LookupError(f"{self.source}: no row where {wanted}")
        return found

    def cell(self, metric: str = "latency", *, words: dict[str, str] | None = None, **wanted: Any) -> str:
        """The cell of `harness show`, `1.23 ±1.2%`, or what `words` has for the status of a case that failed."""
        found = self.where(**wanted)
        row = next((row for row in found if row["metric"] == metric), None) or found.only(status=lambda s: s != "ok")
        low, high = (float(row[name]) if row[name] else None for name in ("ci_low", "ci_high"))
        value = float(row["value"]) if row["status"] == "ok" else None
        status = (words or {}).get(row["status"], row["status"])
        return cell_text(Cell(value=value, ci_low=low, ci_high=high, status=status, note=row["note"]), 1.0)


class Page:
    """A page whose figures are being compared; `text` is the page with those that the files give."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text
        self.read: set[str] = set()
        self.tables: set[str] = set()
        self.said: list[str] = []

    def rows(self, path: str) -> Rows:
        """A CSV file, or the measurements of a run, by its path from the repository's root."""
        self.read.add(path)
        file = ROOT / path
        file = file / "measurements.csv" if file.is_dir() else file
        with file.open(encoding="utf-8", newline="") as lines:
            return Rows(tuple(csv.DictReader(lines)), path)

    def json(self, path: str) -> Any:
        """A JSON file by its path from the repository's root."""
        self.read.add(path)
        return json.loads((ROOT / path).read_text(encoding="utf-8"))

    def say(self, template: str, *values: float | str) -> None:
        """Words of the page, wherever its lines break, with a value for each `{}`; `{!s}` stands for words."""
        pattern, texts, left = "", [], list(values)
        for literal, field, form, conversion in Formatter().parse(template):
            pattern += r"\s+".join(map(re.escape, re.split(r"\s+", literal)))
            if field is not None:
                pattern += f"({WORDS if conversion else NUMBER})"
                value = left.pop(0)
                texts.append(value if isinstance(value, str) else format(value, form or ""))
        if left:
            raise Misquoted(f"{self.name}: {len(left)} values too many for: {template}")
        found = list(re.finditer(pattern, self.text))
        if len(found) != 1:
            raise Misquoted(f"{self.name}: {len(found)} places, not one, read like: {template}")
        begin, told = found[0].start(), found[0].group()
        for at in range(len(texts), 0, -1):
            start, end = (place - begin for place in found[0].span(at))
            told = told[:start] + texts[at - 1] + told[end:]
        self.text = self.text[:begin] + told + self.text[found[0].end() :]
        self.said.append(told)

    def table(self, header: str, body: Sequence[Sequence[str]]) -> None:
        """The table with that header line, its body anew."""
        self.tables.add(header)
        lines = self.text.splitlines(keepends=True)
        at = [place for place, line in enumerate(lines) if line.rstrip("\n") == header]
        if len(at) != 1:
            raise Misquoted(f"{self.name}: {len(at)} tables, not one, begin with: {header}")
        begin = end = at[0] + 2
        while end < len(lines) and lines[end].startswith("|"):
            end += 1
        made = [re.sub(r"\|\s+(?=\|)", "| ", f"| {' | '.join(cells)} |") + "\n" for cells in body]
        self.text = "".join([*lines[:begin], *made, *lines[end:]])

    def covers(self, header: str) -> None:
        """That the table with that header line has its figures by `say`."""
        if f"\n{header}\n" not in self.text:
            raise Misquoted(f"{self.name}: no table begins with: {header}")
        self.tables.add(header)

    def between(self, begin: str, end: str, text: str) -> None:
        """What stands between two lines of the page."""
        before, first, rest = self.text.partition(begin)
        _, second, after = rest.partition(end)
        if not first or not second:
            raise Misquoted(f"{self.name}: it lacks {begin} or {end}")
        self.tables |= {line for line in text.splitlines() if line.startswith("| ")}
        self.text = f"{before}{begin}\n{text}\n{end}{after}"


def names() -> list[str]:
    """The files here, one a page."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))


def quoted(name: str, text: str | None = None) -> tuple[Path, Page]:
    """(path, page) with the figures of that file. text: of the page, as it stands on disk by default."""
    module = importlib.import_module(f"{__name__}.{name}")
    path = ROOT / module.PAGE
    page = Page(module.PAGE, path.read_text(encoding="utf-8") if text is None else text)
    module.quote(page)
    return path, page


def times(ratio: float) -> str:
    """How many times: 4.2, 34, 203."""
    return f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:.0f}"


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """`0.882 (0.833 to 0.911)`: mean and range."""
    return f"{sum(values) / len(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def option(**wanted: str) -> Callable[[str], bool]:
    """Whether a row's options hold these: option(init="sharp"); "" for one that is not there."""

    def meets(text: str) -> bool:
        given = dict(part.split("=", 1) for part in text.split(";") if part)
        return all(given.get(key, "") == value for key, value in wanted.items())

    return meets


def _meets(row: Row, wanted: dict[str, Any]) -> bool:
    return all(
        value(row[column]) if callable(value)
        else row[column] in map(str, value) if isinstance(value, tuple)
        else row[column] == str(value)
        for column, value in wanted.items()
    )  # fmt: skip

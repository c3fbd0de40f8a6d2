"""The report of one run or several: one HTML file that needs nothing else, not even a network. No torch.

    html = build([figures.load(Path("results/cpu/sweep"))], kinds={"flash": "exact", "anchor": "approximate"})
    write(html, Path("results/cpu/sweep/report.html"))      # atomically; never over a file that is no report

Rows of different machines are never ranked or drawn together; runs of one machine are, each case by its newest row.
Everything that users wrote (names, notes, machines) reaches the page as data: a gzipped island of columns, and text
that Jinja2 escapes.
May import answers and what is below.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import Failure, UsageError, reason
from harness.store import opening
from harness.store.replacing import replacing

if TYPE_CHECKING:
    from harness.figures import Run

MARK = "<!doctype html>\n<!-- attention-harness report -->\n"
NAME = "report.html"


def build(
    runs: Sequence[Run], *, kinds: Mapping[str, str], defaults: Mapping[str, Mapping[str, str]] | None = None
) -> str:  # fmt: skip
    """The page of these runs. kinds: which variants are exact, which a floor; defaults: of each variant's options, as
    text. Raises Failure without Plotly or Jinja2."""
    missing = [name for name in ("plotly", "jinja2") if not _installed(name)]
    if missing:
        raise Failure(f"report needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    from harness.report.page import render

    page = render(runs, kinds=kinds, defaults=defaults or {})
    return MARK + page.encode("utf-8", "replace").decode("utf-8")  # a folder's name need not be UTF-8


def default_path(runs: Sequence[Run]) -> Path:
    """report.html in the run's folder; for several runs, in the folder that holds them all."""
    folders = [run.folder.resolve() for run in runs]
    if len(set(folders)) == 1:
        return runs[0].folder / NAME
    return Path(os.path.commonpath([folder.parent for folder in folders])) / NAME


def check_target(out: Path) -> None:
    """Raise UsageError where `out` is a folder or a file that is no report: such a file is never replaced."""
    try:
        if out.is_dir():
            raise UsageError(f"--out {out} is a folder; name a file, such as {out / NAME}")
        if not out.exists():
            return
        with os.fdopen(opening.opened(out, links=True), "rb") as file:
            begins = file.read(len(MARK.encode()))
    except OSError as error:
        raise UsageError(f"cannot write {out}: {reason(error)}; choose another --out") from None
    if begins and begins != MARK.encode():
        raise UsageError(f"{out} exists and is not a report of ours; it was left untouched: choose another --out")


def write(html: str, out: Path) -> None:
    """Write beside it, then rename: a reader sees the old report or the new one. Raises UsageError."""
    check_target(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out, several=True) as partial:
            partial.write_text(html, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(f"cannot write {out}: {reason(error)}") from None


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None

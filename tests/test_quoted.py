"""What README and docs quote as measured is what the CSV files give, and nothing is quoted that has no file."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripting import SCRIPTS, load

sys.path.insert(0, str(SCRIPTS))
import quotes  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
FIGURE = re.compile(  # a cell that is nothing but a figure with a fraction or a unit
    r"[-+≤]?\d[\d\s]*(?:[.,]\d+(?:e[-+]?\d+)?|(?=\s?(?:ms|µs|%|×|MiB|GiB|GB)))"
    r"\s?(?:ms|µs|%|×|MiB|GiB|GB|M|G)?(?:\s?±.*|\s\(.*\)|,.*)?"
)

# Tables with figures that no file of results/ holds, and what they are.
COMPUTED = {
    "docs/anchor.md": {
        "| | FLOP | peak, forward | peak, train |": "the cost model; tests/attentions/test_cost.py",
        "| | FLOP, forward and backward | parameters | peak, forward | peak, train |":
            "the cost model; tests/attentions/variants/test_anchor_options.py",
    },
    "docs/models.md": {
        "| | anchor, m=30, distilled | | full, not distilled | | |": "counted; tests/harness/vision/test_vit.py",
        "| resolution | n | tiny: full | anchor | saved | small: full | anchor | saved | base: full | anchor | saved |":
            "scripts/model_cost.py",
    },
    "docs/performance.md": {
        "| shape | FLOPs | FLOPs ÷ rate | minimal bytes | bytes ÷ bandwidth | bound by |": "sizes over the two rates",
    },
    "docs/long_heads.md": {
        "| form | what it changes | units moved | predicted share of a copy, n = 4096, 16384, 65536 |":
            "predictions; their arithmetic is below the table",
    },
    "docs/which.md": dict.fromkeys(
        (
            "| n | exact | ms | MiB | not exact, m = 64 | ms | MiB | as fast as exact | cases |",
            "| | m = 16 | m = 64 | m = 256 |", "| attention | m | seeds | mean | lowest to highest |",
            "| | phase | resolution | best exact | ms | anchor, ms | as fast as exact | file |",
        ),
        "scripts/which.py writes the page; tests/scripts/test_which.py",
    ),
    "docs/swapping.md": {
        "| family | model | taken | moved | `none` moves | left as it was |": "scripts/swap_timm.py writes the page",
    },
}  # fmt: skip

# Such figures in sentences that are a setting or have a test of their own.
SETTINGS = {
    "docs/anchor.md": {"0.020", "0.028", "0.040"},  # tests/harness/vision/test_vit.py
    "docs/gate.md": {"40 ms"}, "docs/timing.md": {"0.2 ms"},
}  # fmt: skip
TOLD = re.compile(r"\d[\d.]*\sms\b|\b[01]\.\d{3,}\b")


@pytest.mark.parametrize("name", quotes.names())
def test_a_page_quotes_what_its_files_give(name: str) -> None:
    path, page = quotes.quoted(name)
    assert page.text == path.read_text(encoding="utf-8"), "python scripts/quoted.py --write"


def test_a_figure_that_is_not_the_files_is_put_right() -> None:
    path, page = quotes.quoted("readme")
    text = path.read_text(encoding="utf-8")
    for right, wrong in (("4.2, 34 and", "4.4, 34 and"), ("| full | | 0.", "| full | | 7.")):
        assert text.count(right) == 1
        assert quotes.quoted("readme", text.replace(right, wrong))[1].text == text == page.text


def test_words_that_changed_are_named() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    with pytest.raises(quotes.Misquoted, match=r"README.md: 0 places, not one, read like: From n = 4k on"):
        quotes.quoted("readme", text.replace("by its kernels is", "by kernels is"))
    with pytest.raises(quotes.Misquoted, match="0 tables, not one, begin with"):
        quotes.quoted("readme", text.replace("| | 1k | 4k |", "| | 1k | 8k |"))


def test_rows_are_chosen_by_their_columns() -> None:
    rows = quotes.Rows(({"n": "64", "value": "1.5"}, {"n": "128", "value": "2.5"}), "made.csv")
    assert rows.one(n=64) == 1.5
    assert rows.all(n=("64", "128")) == [1.5, 2.5]
    assert rows.all(n=lambda n: int(n) > 64) == [2.5]
    with pytest.raises(LookupError, match=r"made.csv: 2 rows where .*; one is meant"):
        rows.one()
    with pytest.raises(LookupError, match="no row where"):
        rows.all(n=1)
    assert quotes.option(init="sharp", logits="")("init=sharp;task=recall")
    assert not quotes.option(init="sharp")("init=paper")


def tables(text: str) -> Iterator[tuple[str, str]]:
    """(header, body) of each table."""
    for found in re.finditer(r"^(\|.*\|)\n\|[-:|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE):
        yield found.group(1), found.group(2)


def holds_figures(body: str) -> bool:
    """Whether any cell, of the first column none, is a figure."""
    cells = [cell.strip().strip("*") for line in body.splitlines() for cell in line.strip("|").split("|")[1:]]
    return any(FIGURE.fullmatch(cell) for cell in cells)


def quoted_pages() -> dict[str, quotes.Page]:
    pages = (quotes.quoted(name)[1] for name in quotes.names())
    return {page.name: page for page in pages}


def test_every_table_of_figures_is_quoted_or_computed() -> None:
    quoted, left = quoted_pages(), []
    for path in PAGES:
        name = str(path.relative_to(ROOT))
        known = (quoted[name].tables if name in quoted else set()) | set(COMPUTED.get(name, ()))
        text = path.read_text(encoding="utf-8")
        left += [(name, header) for header, body in tables(text) if holds_figures(body) and header not in known]
        assert not set(COMPUTED.get(name, ())) - {header for header, _ in tables(text)}, "a table that is gone"
    assert not left


def test_milliseconds_and_fine_fractions_in_sentences_are_quoted() -> None:
    quoted, left = quoted_pages(), []
    for path in PAGES:
        name = str(path.relative_to(ROOT))
        text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        prose = "\n".join(line for line in text.splitlines() if not line.startswith(("|", "    ")))
        known = " ".join(quoted[name].said) if name in quoted else ""
        told = {" ".join(figure.split()) for figure in TOLD.findall(prose)} - SETTINGS.get(name, set())
        left += [(name, figure) for figure in sorted(told) if figure not in " ".join(known.split())]
    assert not left


def test_every_file_that_a_page_quotes_is_read() -> None:
    """A page that names a table of results/ beside its figures has them from there."""
    quoted = quoted_pages()
    for path in PAGES:
        name = str(path.relative_to(ROOT))
        named = set(re.findall(r"\]\((?:\.\./)?(results/[\w/.]+\.(?:csv|json))\)", path.read_text(encoding="utf-8")))
        named = {file.removesuffix("/measurements.csv") for file in named}
        assert named <= (quoted[name].read if name in quoted else set()), name


def test_the_script_compares_and_says_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    script = load("quoted")
    assert script.main([]) == 0
    assert script.main(["nowhere"]) == 2
    assert "no page nowhere; valid: anchor," in capsys.readouterr().err

"""The table of docs/timing.md from a CSV of scripts/timing_agreement.py --device cuda, written to its place there.

    python scripts/timing_table.py results/h100/timing_agreement.csv            # the page's table anew
    python scripts/timing_table.py results/h100/timing_agreement.csv --print    # only shown

Above it stands how many cases agree within 3 %, for each clock, and which do not: made from the figures.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "timing.md"
BEGIN, END = "<!-- agreement on a GPU: begin -->", "<!-- agreement on a GPU: end -->"
CLOCKS = {
    "do_bench": "do_bench",
    "do_bench_held": "do_bench, held",
    "graph": "graph replay",
    "span": "CUPTI span",
    "cupti": "CUPTI sum",
}
WITHIN = 0.03
MOST = 12  # rows of a page; beyond, those of the n that is measured first, and the file has the others
Row = dict[str, str]


def main() -> None:
    """Write or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--print", action="store_true", dest="shown", help="leave the page alone")
    given = parser.parse_args()
    with given.file.open(encoding="utf-8", newline="") as file:
        text = table(list(csv.DictReader(file)))
    if given.shown:
        print(text)
        return
    PAGE.write_text(placed(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")


def placed(page: str, text: str) -> str:
    """The page with `text` in the marked place. Raises ValueError where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks its marks, {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def table(rows: list[Row]) -> str:
    """Sentences and table."""
    clocks = {clock: name for clock, name in CLOCKS.items() if any(row.get(f"{clock}_ms") for row in rows)}
    gpus = ", ".join(sorted({row["gpu"] for row in rows if row.get("gpu")}))
    lines = [f"Ours against the other, {len(rows)} cases at b 1, h 12, d 64, bf16{f', {gpus}' if gpus else ''}:", ""]
    lines += [_agreement(rows, clock, name) for clock, name in clocks.items()]
    head = ("case", "ours, ms", "±", "host, ms", "kernels", *clocks.values(), "void", "note")
    lines += ["", _line(head), _line(["---"] * len(head))]
    shown = rows if len(rows) <= MOST else [row for row in rows if row["n"] == rows[0]["n"]]
    lines += [_line(_cells(row, list(clocks))) for row in shown]
    return "\n".join(lines)


def _agreement(rows: list[Row], clock: str, name: str) -> str:
    """How many cases agree, and by how much the others differ at most, as a time and as a share, with the case."""
    there = [(share, row) for row in rows if (share := _against(row, clock)) is not None]
    far = [(abs(_apart_us(row, clock)), share, row) for share, row in there if abs(share) > WITHIN]
    text = f"- {name}: {len(there) - len(far)} of {len(there)} within {100 * WITHIN:.0f} %"
    if not far:
        return text
    (apart, _, longest), (_, share, worst) = max(far, key=lambda one: one[0]), max(far, key=lambda one: abs(one[1]))
    time = f"{apart:.{0 if apart >= 100 else 1}f} µs ({_name(longest)})"
    return f"{text}, the others by up to {time} and {100 * share:+.0f} % ({_name(worst)})"


def _cells(row: Row, clocks: list[str]) -> list[str]:
    figures = [_ms(row, "harness_ms"), _width(row), _ms(row, "host_ms"), row["kernels"] or "-"]
    shares = [_against(row, clock) for clock in clocks]
    against = [f"{100 * share:+.1f} %" if share is not None else "-" for share in shares]
    return [_name(row), *figures, *against, row["voids"] or "-", row["note"].replace("|", "/")]


def _name(row: Row) -> str:
    return f"{row['attention']}:{row['backend']} {row['phase']} n={row['n']}"


def _ms(row: Row, column: str) -> str:
    return f"{float(row[column]):.4g}" if row[column] else "-"


def _width(row: Row) -> str:
    if not row["harness_ms"]:
        return "-"
    return f"{50 * (float(row['high_ms']) - float(row['low_ms'])) / float(row['harness_ms']):.1f} %"


def _against(row: Row, clock: str) -> float | None:
    """Ours over the other's, minus one; None where one of them is not there or ours is not the device's time."""
    theirs = row.get(f"{clock}_ms")
    if not row["harness_ms"] or not theirs or not row["host_ms"]:
        return None
    return float(row["harness_ms"]) / float(theirs) - 1


def _apart_us(row: Row, clock: str) -> float:
    return 1e3 * (float(row["harness_ms"]) - float(row[f"{clock}_ms"]))


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

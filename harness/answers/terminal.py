"""A recommendation as lines of a terminal.

print(as_text(answer))      # the two lines, why, what is kept, the ranking, who broke which limit, what is not known
"""

from __future__ import annotations

import textwrap

from harness.answers.candidates import Candidate
from harness.answers.recommend import Answer
from harness.answers.wording import error_of, figure, told
from harness.store.selection import printable
from harness.store.table import terminal_width

MOST_LINES = 12
HEAD = ("variant", "latency (95 % interval)", "of the best", "peak memory", "to softmax", "")


def as_text(answer: Answer) -> str:
    """An answer for a terminal: the two lines, why, what is known to be kept, the ranking, who broke which limit, and
    what is not known."""
    lines = [*(text for text, _ in answer.lines), *answer.reasons, ""]
    if answer.kept:
        lines += [*(f"- {line}" for line in answer.kept), ""]
    grid = [_columns(candidate, answer.ranking[0]) for candidate in answer.ranking[:MOST_LINES]]
    grid = [HEAD, *grid] if grid else []
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    padded = ("  ".join(cell.ljust(wide) for cell, wide in zip(cells, widths, strict=True)) for cells in grid)
    lines += [f"  {line}".rstrip() for line in padded]
    if len(answer.ranking) > MOST_LINES:
        lines.append(f"  and {len(answer.ranking) - MOST_LINES} more: --json has them all")
    if answer.refused:
        lines += ["", "Over a limit, the nearest first:"]
        lines += [f"- {one.candidate.name}: {'; '.join(one.reasons)}" for one in answer.refused[:MOST_LINES]]
        if len(answer.refused) > MOST_LINES:
            lines.append(f"- and {len(answer.refused) - MOST_LINES} more: --json has them all")
    lines += ["", "What this does not say:", *(f"- {line}" for line in answer.unknown)]
    width = terminal_width()
    wrapped = [
        text
        for line in lines
        for text in textwrap.wrap(
            printable(line, limit=600), width, subsequent_indent="  " if line.startswith(("- ", "  ")) else "",
            break_on_hyphens=False, drop_whitespace=not line.startswith("  "),
        ) or [""]
    ]  # fmt: skip
    return "\n".join(text.rstrip() for text in wrapped).replace("\n\n\n", "\n\n") + "\n"


def _columns(one: Candidate, best: Candidate) -> tuple[str, ...]:
    """Name, time, share of the best's, memory, error."""
    memory = f"{figure(one.memory)} MiB" if one.memory is not None else ""
    kind = "exact" if one.exact else f"error {error_of(one)}"
    remarks = ", ".join(filter(None, ["interpolated" if one.between else "", "contended" if one.contended else ""]))
    return one.name, told(one), f"{figure(one.time.ms / best.time.ms)}×", memory, kind, remarks

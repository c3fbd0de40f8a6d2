"""The measured figures of README and docs, computed again from the CSV files that they are quoted from.

    python scripts/quoted.py                          # 1 where a page shows something else than its files give
    python scripts/quoted.py --write                  # after new results: the figures anew, in place
    python scripts/quoted.py --write performance      # of one page

scripts/quotes/ has one file a page. A sentence whose words have changed is named and left to you.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import quotes


def main(words: list[str]) -> int:
    """Compare or write the pages; the exit code."""
    write, chosen = "--write" in words, [word for word in words if word != "--write"] or quotes.names()
    if unknown := sorted(set(chosen) - set(quotes.names())):
        print(f"quoted: no page {', '.join(unknown)}; valid: {', '.join(quotes.names())}", file=sys.stderr)
        return 2
    differ = 0
    for name in chosen:
        try:
            path, page = quotes.quoted(name)
        except (quotes.Misquoted, LookupError, OSError) as error:
            print(f"quoted: {error}", file=sys.stderr)
            differ += 1
            continue
        before = path.read_text(encoding="utf-8")
        if page.text == before:
            continue
        print(f"{page.name}: {_changed(before, page.text)} lines differ{'; written' if write else ''}")
        if write:
            path.write_text(page.text, encoding="utf-8")
        else:
            differ += 1
    return 1 if differ else 0


def _changed(before: str, after: str) -> int:
    return sum(one != other for one, other in zip(before.splitlines(), after.splitlines(), strict=False)) or 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

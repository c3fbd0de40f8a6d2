"""The outputs in docs/ that do not depend on the machine: run again and compared, or written anew.

    python scripts/docs_outputs.py                    # 1 where the page shows something else than the command prints
    python scripts/docs_outputs.py --write            # after new results or a changed command

They are the blocks after a line `<!-- tested -->`: `$ harness …` and what it prints, 80 columns wide, in a folder with
results/cpu alone. tests/test_docs.py compares them.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = tuple(ROOT / "docs" / name for name in ("commands.md", "report.md"))
BLOCK = re.compile(r"(?<=<!-- tested -->\n```console\n)\$ (harness[^\n]*)\n(.*?)(?=```\n)", re.DOTALL)


def commands(text: str) -> list[str]:
    """The tested command lines of a page."""
    return [found.group(1) for found in BLOCK.finditer(text)]


def renewed(text: str) -> str:
    """The page with what its tested commands print now. Raises RuntimeError where one fails."""
    return BLOCK.sub(lambda found: f"$ {found.group(1)}\n{output(found.group(1))}", text)


def output(line: str) -> str:
    """What a command prints in a folder with results/cpu alone, stdout then stderr. Raises RuntimeError if it fails."""
    environment = os.environ | {"COLUMNS": "80", "TERM": "dumb", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as place:
        Path(place, "results").mkdir()
        Path(place, "results", "cpu").symlink_to(ROOT / "results" / "cpu")
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(line)], cwd=place, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    if done.returncode not in (0, 2, 4):
        raise RuntimeError(f"{line}: exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout + done.stderr


def main(words: list[str]) -> int:
    """Compare or write the pages; the exit code."""
    if words not in ([], ["--write"]):
        print(__doc__, file=sys.stderr)
        return 2
    differ = 0
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = renewed(before)
        if after == before:
            continue
        if words:
            page.write_text(after, encoding="utf-8")
        else:
            print(f"{page.name} shows something else than its commands print; renew it with --write", file=sys.stderr)
            differ = 1
    return differ


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

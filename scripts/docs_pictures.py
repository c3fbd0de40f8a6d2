"""The pictures of the pages that are no figures: the terminal and the report, both of stored runs.

    python scripts/docs_pictures.py              # 1 where docs/terminal.svg shows another output than the command's
    python scripts/docs_pictures.py --write      # both anew; the report's picture needs playwright and a Chromium

docs/terminal.svg is what TERMINAL prints, set by rich; docs/report.png what a browser shows of REPORT's page.
tests/test_docs.py compares the first.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "scripts"))

from docs_outputs import output  # noqa: E402

TERMINAL = "harness show results/cpu/sweep --phase forward --dtype float32 --m 64"
REPORT = "harness report results/h200/sweep"
SVG, PNG = ROOT / "docs" / "terminal.svg", ROOT / "docs" / "report.png"
COLUMNS = 80
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
READY = "html[data-ready=true]"
VIEW = {"width": 1200, "height": 860}


def terminal(line: str = TERMINAL) -> str:
    """The command and what it prints as a picture of a terminal that needs no font from elsewhere."""
    from rich._export_format import CONSOLE_SVG_FORMAT
    from rich.console import Console
    from rich.text import Text

    plain = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    plain = re.sub(r"<!--.*?-->\s*", "", plain, flags=re.DOTALL).replace(
        "Fira Code", "DejaVu Sans Mono, Menlo, Consolas"
    )
    console = Console(record=True, file=io.StringIO(), width=COLUMNS + 2, legacy_windows=False, force_jupyter=False)
    console.print(Text(f"$ {line}", style="bold"), no_wrap=True, overflow="ignore")
    console.print(Text(output(line).rstrip()), no_wrap=True, overflow="ignore")
    return console.export_svg(title="", code_format=plain, unique_id="terminal")


def report_picture(path: Path) -> None:
    """What a browser shows first of the report, with every chart drawn. Raises SystemExit without a browser."""
    from playwright.sync_api import sync_playwright

    import harness

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise SystemExit(f"docs_pictures: no browser; install one of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        page = harness.read(ROOT / shlex.split(REPORT)[-1]).report(Path(folder) / "report.html")
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        view = browser.new_page(viewport=VIEW, color_scheme="light")
        view.goto(page.resolve().as_uri())
        view.wait_for_selector(READY, state="attached", timeout=120_000)
        view.screenshot(path=path)
        browser.close()


def main(words: list[str]) -> int:
    """Compare the terminal's picture, or write both; the exit code."""
    if words not in ([], ["--write"]):
        print(__doc__, file=sys.stderr)
        return 2
    made = terminal()
    if words:
        SVG.write_text(made, encoding="utf-8")
        report_picture(PNG)
        return 0
    if made != SVG.read_text(encoding="utf-8"):
        print(f"{SVG.name} shows another output than {TERMINAL}; renew it with --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

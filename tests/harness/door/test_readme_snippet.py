"""README's Python, as it stands there, in a folder of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_it_runs(surroundings: dict[str, str], tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (snippet,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "harness.run(" in block)
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=tmp_path, env=surroundings, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "| cosine_attention:reference |" in done.stdout
    assert "at n = 512" in done.stdout
    assert (tmp_path / "latency.png").stat().st_size > 10_000
    assert (tmp_path / "results" / "mine" / "variants" / "cosine_attention.py").is_file()

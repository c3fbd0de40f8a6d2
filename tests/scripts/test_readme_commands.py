"""The README's commands, from the wheel in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripting import load

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "readme_commands.py"


@pytest.fixture(scope="module")
def script() -> Any:
    return load("readme_commands")


def test_commands_are_found_and_shrunk(script: Any) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = script.commands(text)
    assert {line.split()[1] for line in lines} >= {"run", "plan", "show", "crossover", "compare", "list", "doctor"}
    assert all("#" not in line for line in lines)
    assert any("--plugin my_attention.py" in line for line in lines)
    words = script.shrunk("harness run --n 1k..16k --m 16,64,256 --phase forward,train")
    assert words[:8] == ["harness", "run", "--n", "96,128", "--m", "16", "--phase", "forward,train"]
    assert script.shrunk("harness run --resume") == ["harness", "run", "--resume"]
    assert script.shrunk("harness show") == ["harness", "show"]
    assert any(source.startswith("# my_attention.py") for source in script.snippets(text))


@pytest.mark.slow
def test_every_command_runs_from_the_wheel(script: Any, tmp_path: Path) -> None:
    try:
        script.wheel(tmp_path)
    except subprocess.CalledProcessError:
        pytest.skip("the wheel cannot be built here: its build backend, hatchling, is neither cached nor reachable")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--small"], capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path)} | _uv_cache(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def _uv_cache() -> dict[str, str]:
    """uv's own cache stays where it is, so that the build backend is found in it."""
    home = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return {"UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path(home, "uv")))}

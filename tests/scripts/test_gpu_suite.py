"""The GPU suite with an interpreter that only notes what it is asked: order, failures, time limits, exit codes."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Suite = Callable[..., tuple[subprocess.CompletedProcess[str], dict[str, str], list[str]]]
SUITE = Path(__file__).parents[2] / "scripts" / "gpu_suite"
FAKE = """#!/bin/bash
if [ "$1" = - ]; then cat > /dev/null; exit 0; fi
if [ "$1" = -c ]; then exit 1; fi
echo "$*" >> "$ASKED"
case "$*" in
  *"harness crossover"*) echo broken >&2; exit 3 ;;
  *"harness doctor"*) sleep 60 ;;
  *kernel_table.py*) echo the table ;;
esac
"""


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    fake = tmp_path / "python"
    fake.write_text(FAKE)
    fake.chmod(0o755)

    def run(*parts: str, seconds: int = 60) -> tuple[subprocess.CompletedProcess[str], dict[str, str], list[str]]:
        asked = tmp_path / "asked"
        asked.write_text("")
        done = subprocess.run(
            [SUITE, tmp_path / "out", *parts], capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHON": str(fake), "ASKED": str(asked), "GPU_SUITE_SECONDS": str(seconds)},
        )  # fmt: skip
        rows = csv.DictReader((tmp_path / "out" / "parts.csv").read_text().splitlines())
        return done, {row["part"]: row["exit_code"] for row in rows}, asked.read_text().splitlines()

    return run


def test_a_failing_part_stops_no_other_and_fails_the_suite(suite: Suite) -> None:
    done, codes, asked = suite("crossover", "more", "table")
    assert (done.returncode, codes) == (1, {"crossover": "3", "more": "0", "table": "0"})
    assert "crossover failed with 3" in done.stdout
    assert "broken" in done.stdout
    assert done.stdout.rstrip().endswith("the table")
    assert "--m 16,256" in asked[1]


def test_chosen_parts_that_pass(suite: Suite) -> None:
    done, codes, asked = suite("tune", "kernels")
    assert (done.returncode, codes) == (0, {"kernels": "0", "tune": "0"})
    assert list(codes) == ["kernels", "tune"], "in the suite's order, not the caller's"
    assert asked[0].startswith("-m harness run --config scripts/gpu_kernels.toml --out ")


def test_past_the_limit_only_the_table_is_made(suite: Suite) -> None:
    done, codes, _ = suite("doctor", "tune", "table", seconds=6)
    assert (done.returncode, codes) == (1, {"doctor": "124", "tune": "unreached", "table": "0"})


def test_a_run_that_is_there_is_resumed(suite: Suite, tmp_path: Path) -> None:
    (tmp_path / "out" / "long").mkdir(parents=True)
    (tmp_path / "out" / "long" / "measurements.csv").write_text("rows")
    _, _, asked = suite("long")
    assert asked == [f"-m harness run --resume --out {tmp_path / 'out' / 'long'} --quiet"]


def test_every_test_marked_gpu_is_among_those_it_runs() -> None:
    tests, word = SUITE.parents[1] / "tests", "mark." + "gpu"
    marked = {x.relative_to(tests).as_posix() for x in tests.rglob("*.py") if word in x.read_text(encoding="utf-8")}
    given = set(re.findall(r"(?<= tests/)[\w/.]+", SUITE.read_text(encoding="utf-8")))
    assert len(given) >= 3
    assert all((tests / path).exists() for path in given), given
    lacking = {x for x in marked if not any(x == path or x.startswith(f"{path}/") for path in given)}
    assert not lacking


def test_the_page_tells_the_parts_and_their_limits_in_order() -> None:
    script = SUITE.read_text(encoding="utf-8")
    limits = re.findall(r"^(?:part|measure|  attempt) (\w+) (\d+) ", script, re.MULTILINE)
    page = (SUITE.parents[1] / "docs" / "gpu.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \| (\d+) s \|", page, re.MULTILINE)
    assert told == [(name, seconds) for name, seconds in limits if name != "table"] + [("table", "20")]
    assert f"{sum(int(seconds) for _, seconds in told)} s" in page


def test_a_machine_without_a_gpu_is_told_so(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([SUITE, tmp_path], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 5
    assert "gpu_suite: PyTorch sees no CUDA device here" in done.stderr

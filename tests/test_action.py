"""The GitHub action: options that exist, inputs that are used, its scripts run with stand-ins for what they call."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.check import output

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "action.yml").read_text(encoding="utf-8")
ACTION: Any = yaml.safe_load(TEXT)
STEPS: dict[str, Any] = {step["name"]: step for step in ACTION["runs"]["steps"] if "run" in step}
FROZEN = (ROOT / "tests" / "harness" / "cli" / "cli_options.txt").read_text(encoding="utf-8")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
TOLD = '#!/bin/sh\nprintf "%s\\n" "$(basename "$0")" "$@" >> "$TOLD"\n'


def run(name: str, folder: Path, stand_ins: dict[str, str], **given: str) -> tuple[int, list[str], str]:
    """The exit code of a step as GitHub runs it, what its commands were given, and what it printed.

    stand_ins: what a command of the name does beside writing down its arguments.
    """
    programs = folder / "bin"
    programs.mkdir()
    for command, does in stand_ins.items():
        (programs / command).write_text(TOLD + does, encoding="utf-8")
        (programs / command).chmod(0o755)
    told = folder / "told"
    env = {"PATH": f"{programs}:{os.environ['PATH']}", "TOLD": str(told)} | dict.fromkeys(STEPS[name]["env"], "")
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[name]["run"]],
        env=env | given, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    words = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    return done.returncode, words, done.stdout + done.stderr


def test_every_option_that_it_names_is_one_of_check() -> None:
    known = {word for line in FROZEN.splitlines() for word in line.split()[1:] if line.startswith("check ")}
    named = set(OPTION.findall(STEPS["harness check"]["run"]))
    named |= {word for one in ACTION["inputs"].values() for word in OPTION.findall(one["description"])}
    assert {"--junit", "--comment", "--against", "--baseline", "--plugin", "--thorough", "--update"} <= named
    assert named <= known


def test_every_input_is_used_and_every_one_that_is_used_is_there() -> None:
    runs = TEXT.partition("\nruns:")[2]
    assert set(re.findall(r"inputs\.([a-z]+)", runs)) == set(ACTION["inputs"])
    for name, step in STEPS.items():
        read = set(re.findall(r"\$\{?([A-Z]+)\b", step["run"]))
        assert read == set(step["env"]) - {"GH_TOKEN"}, name  # which gh reads


def test_the_gate_gets_what_the_inputs_say(tmp_path: Path) -> None:
    code, words, _ = run(
        "harness check", tmp_path, {"harness": ""}, AGAINST="origin/main", PLUGIN="a b.py", MORE="--n 1k,4k --thorough",
        JUNIT="harness-check.xml", COMMENT="c.md",
    )  # fmt: skip
    assert code == 0
    assert words == [
        "harness", "check", "--junit", "harness-check.xml", "--comment", "c.md", "--against", "origin/main",
        "--plugin", "a b.py", "--n", "1k,4k", "--thorough",
    ]  # fmt: skip


@pytest.mark.parametrize("code", [1, 3, 5])
def test_the_gates_exit_code_is_the_steps(tmp_path: Path, code: int) -> None:
    given = {"JUNIT": "j.xml", "COMMENT": "c.md", "BASELINE": "b.csv"}
    assert run("harness check", tmp_path, {"harness": f"exit {code}\n"}, **given)[0] == code


def test_what_is_installed_is_pinned_and_the_inputs_words_are_words(tmp_path: Path) -> None:
    code, words, _ = run("install", tmp_path, {"python": "", "uv": ""}, INSTALL="-r requirements.txt", HERE="/action")
    assert code == 0
    assert words == [
        "python", "-m", "pip", "install", "--quiet", "--constraint", "/action/constraints.txt", "uv",
        "uv", "pip", "install", "--quiet", "--system", "--constraint", "/action/constraints.txt", "/action",
        "uv", "pip", "install", "--quiet", "--system", "-r", "requirements.txt",
    ]  # fmt: skip


KNOWN = 'case "$*" in *--paginate*) printf "7\\n";; esac\n'
UNKNOWN = ""
REFUSED = "exit 1\n"


@pytest.mark.parametrize(("gh", "method", "place"), [
    (KNOWN, "PATCH", "repos/o/r/issues/comments/7"), (UNKNOWN, "POST", "repos/o/r/issues/5/comments")
])  # fmt: skip
def test_a_pull_request_has_one_comment_which_is_kept_up_to_date(
    tmp_path: Path, gh: str, method: str, place: str
) -> None:
    (tmp_path / "c.md").write_text(f"{output.COMMENT}\nthe table\n", encoding="utf-8")
    code, words, said = run("comment", tmp_path, {"gh": gh}, COMMENT="c.md", NUMBER="5", PLACE="o/r", GH_TOKEN="t")
    assert (code, said) == (0, "")
    assert words[words.index("--jq") + 1].startswith(f'map(select(.body | startswith("{output.COMMENT}")))')
    assert words[words.index("--method") :] == ["--method", method, place, "--field", "body=@c.md", "--silent"]


def test_the_mark_can_stand_in_the_filter() -> None:
    assert not set('"\\$`\n') & set(output.COMMENT)


def test_a_comment_that_may_not_be_written_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "c.md").write_text(f"{output.COMMENT}\n", encoding="utf-8")
    code, _, said = run("comment", tmp_path, {"gh": REFUSED}, COMMENT="c.md", NUMBER="5", PLACE="o/r")
    assert code == 0
    assert "::warning::the comment could not be written: does the job have pull-requests: write?" in said


def test_without_a_table_there_is_no_comment(tmp_path: Path) -> None:
    """The gate ended before its verdict."""
    assert run("comment", tmp_path, {"gh": ""}, COMMENT="c.md", NUMBER="5", PLACE="o/r") == (0, [], "")

"""The digest of a function's code: the same in every process, other for other code, whatever the code reaches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.door.defined import Defined
from harness.errors import UsageError

BODY = """
import torch
FACTOR = 2
NAMES = {"a", "b", "c"}
def scaled(x):
    return FACTOR * x
def mine(q, k, v, *, kind="a"):
    if kind in {"x", "y", "z", "w"}:
        return v
    return torch.softmax(scaled(q) @ k.mT, -1) @ v
"""


def digest(body: str) -> str:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(body, "script.py", "exec"), names)
    return Defined.of(names["mine"]).digest


def test_it_is_the_same_in_every_process(surroundings: dict[str, str]) -> None:
    code = f"from harness.door.defined import Defined\n{BODY}\nprint(Defined.of(mine).digest)"
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env=surroundings | {"PYTHONHASHSEED": seed}, capture_output=True, text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    assert found == {digest(BODY)}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FACTOR = 2", "FACTOR = 3"),
        ("FACTOR * x", "FACTOR + x"),
        ("-1) @ v", "-2) @ v"),
        ('kind="a"', 'kind="b"'),
        ("torch.softmax", "torch.log_softmax"),
        ('"y", "z"', '"y"'),
    ],
)
def test_other_code_has_another_one(old: str, new: str) -> None:
    assert BODY.count(old) == 1
    assert digest(BODY.replace(old, new)) != digest(BODY)


def test_comments_and_places_do_not_count() -> None:
    assert digest("\n\n# a remark\n" + BODY.replace("    return FACTOR", "    # twice\n    return FACTOR")) == digest(
        BODY
    )


def test_what_cannot_be_carried_is_told(tmp_path: Path) -> None:
    file = (tmp_path / "open").open("w")

    def mine(q: Any, k: Any, v: Any) -> Any:
        file.write("x")
        return v

    with pytest.raises(UsageError, match="attention mine cannot be carried to the measuring process: PicklingError"):
        Defined.of(mine)
    file.close()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    def mine(q: Any, k: Any, v: Any) -> Any:
        return v

    (tmp_path / "variants").touch()
    with pytest.raises(UsageError, match=r"cannot write .*variants/mine.py"):
        Defined.of(mine).write(tmp_path)

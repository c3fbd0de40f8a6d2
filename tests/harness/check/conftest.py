"""A git repository with a plugin of its own, at a first revision that every test may change."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

PLUGIN = """import math
import torch
from attentions.base import Backend, Spec

def compute(q, k, v):
    return torch.softmax(q / math.sqrt(q.shape[-1]) @ k.transpose(-2, -1), dim=-1) @ v

def fast(q, k, v):
    return compute(q, k, v)

MINE = Spec(name="mine", title="Mine", exact=True, backends=(Backend("fast", fast), Backend("reference", compute)))
OTHER = Spec(name="other", title="Other", exact=True, backends=(Backend("reference", compute),))
"""


@dataclass
class Repository:
    """The repository's folder, and git in it."""

    path: Path

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, **files: str) -> str:
        for name, text in files.items():
            (self.path / name.replace("__", ".")).write_text(text, encoding="utf-8")
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "change")
        return self.git("rev-parse", "HEAD")

    def edit(self, old: str, new: str) -> None:
        text = (self.path / "mine.py").read_text(encoding="utf-8")
        assert old in text
        (self.path / "mine.py").write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Repository:
    """A first commit with mine.py; the current folder."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "repository"
    folder.mkdir()
    made = Repository(folder)
    made.git("init", "-q", "-b", "main")
    made.git("config", "user.email", "test@example.org")
    made.git("config", "user.name", "Test")
    made.commit(mine__py=PLUGIN)
    monkeypatch.chdir(folder)
    return made

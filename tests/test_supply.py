"""What CI fetches and may do: actions by commit, packages by constraints, few permissions, no expression in scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FENCE = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}|OWNER/attention-harness@COMMIT")


def documents() -> Iterator[tuple[str, Any]]:
    """Every workflow and action of ours, and every one that the documents show."""
    for path in [*WORKFLOWS, ROOT / "action.yml"]:
        yield path.name, yaml.safe_load(path.read_text(encoding="utf-8"))
    for page in [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]:
        for number, text in enumerate(FENCE.findall(page.read_text(encoding="utf-8"))):
            yield f"{page.name} {number}", yaml.safe_load(text)


def steps(document: Any) -> Iterator[dict[str, Any]]:
    """The steps in a document, however deep."""
    if isinstance(document, dict):
        if "uses" in document or "run" in document:
            yield document
        for value in document.values():
            yield from steps(value)
    elif isinstance(document, list):
        for value in document:
            yield from steps(value)


DOCUMENTS = dict(documents())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_actions_are_named_by_commit_and_scripts_hold_no_expression(name: str) -> None:
    for step in steps(DOCUMENTS[name]):
        assert PINNED.fullmatch(step.get("uses", "OWNER/attention-harness@COMMIT")), step
        assert "${{" not in step.get("run", ""), step  # it would be put into the script as text
        for line in step.get("run", "").splitlines():
            if re.search(r"pip install .*\b(uv|pip-audit)\b", line):
                assert "--constraint" in line, line


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_and_nothing_else(path: Path) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert document["permissions"] == {"contents": "read"}
    for job in document["jobs"].values():
        assert "permissions" not in job


def test_the_pins_of_comments_say_their_version() -> None:
    """A commit alone tells no reader how old it is."""
    for path in [*WORKFLOWS, ROOT / "action.yml", ROOT / "docs" / "gate.md"]:
        for line in path.read_text(encoding="utf-8").splitlines():
            if re.search(r"uses: actions/", line):
                assert re.search(r"@[0-9a-f]{40}  # v\d+\.\d+\.\d+$", line), line


def test_documents_are_found() -> None:
    assert {"ci.yml", "action.yml"} <= set(DOCUMENTS)
    assert sum(1 for document in DOCUMENTS.values() for _ in steps(document)) >= 8

"""The base side: revisions, worktrees that do not stay, plugins that move, and which interpreter runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import attentions
from harness.check import interpreter, revisions
from harness.errors import NOTHING, USAGE, Failure, NothingToCompare, UsageError


def left_behind(repository) -> list[str]:
    return repository.git("worktree", "list").splitlines()[1:]


def test_an_unknown_revision_is_a_usage_error_that_names_it(repository):
    with pytest.raises(UsageError, match=r"unknown revision 'nowhere'.*origin/main") as caught:
        revisions.resolve(repository.path, "nowhere")
    assert caught.value.code == USAGE
    with pytest.raises(UsageError, match="unknown revision"):
        revisions.resolve(repository.path, "--output=x")


def test_a_shallow_clone_is_told_to_fetch(repository, tmp_path):
    repository.commit(more__txt="x")
    clone = tmp_path / "shallow"
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{repository.path}", str(clone)], check=True)
    with pytest.raises(UsageError, match="fetch-depth: 0"):
        revisions.resolve(clone, "HEAD~1")


def test_outside_git_there_is_a_way_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--baseline FILE does not"):
        revisions.repository()


def test_base_against_itself_is_refused(repository):
    with pytest.raises(NothingToCompare) as caught:
        revisions.differing(repository.path, repository.git("rev-parse", "HEAD"), "HEAD")
    assert caught.value.code == NOTHING


def test_changes_are_edits_new_files_and_commits_but_not_documents(repository):
    first = repository.git("rev-parse", "HEAD")
    repository.commit(kernel__cu="x", README__md="x")
    (repository.path / "new.py").write_text("x")
    (repository.path / "docs").mkdir()
    (repository.path / "docs" / "a.py").write_text("x")
    repository.edit("import math", "import math  # x")
    files = revisions.changed(repository.path, first)
    assert files == ["README.md", "docs/a.py", "kernel.cu", "mine.py", "new.py"]
    assert revisions.measured(repository.path, files) == ["kernel.cu", "mine.py", "new.py"]


def test_a_change_of_this_harness_is_no_effect_and_one_of_its_variants_is():
    root = Path(revisions.__file__).resolve().parents[2]
    assert revisions.measured(root, ["harness/measuring/worker.py", "attentions/base.py"]) == ["attentions/base.py"]


def test_the_base_side_has_the_committed_plugin_and_this_harness(repository):
    commit = repository.git("rev-parse", "HEAD")
    repository.edit("import math", "import math  # head")
    with revisions.sides(repository.path, commit, plugins=["mine.py"]) as (base, head):
        assert "# head" not in Path(base.plugins[0]).read_text()
        assert "# head" in Path(head.plugins[0]).read_text()
        assert base.python == head.python == sys.executable
        assert [Path(side.path[0]).name for side in (base, head)] == ["base", "head"]
        assert len(base.path[0]) == len(head.path[0])
        for side in (base, head):
            assert (Path(side.path[0]) / "harness").resolve() == Path(revisions.__file__).resolve().parents[1]
        assert base.origin == (str(Path(attentions.__file__).resolve().parent), base.plugins[0])
        assert len(left_behind(repository)) == 1
    assert left_behind(repository) == []
    assert not Path(base.path[0]).exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_the_worktree_is_removed_however_it_ends(repository, error):
    commit = repository.git("rev-parse", "HEAD")
    repository.edit("import math", "import math  # head")
    with pytest.raises(error), revisions.sides(repository.path, commit, plugins=[]):
        raise error
    assert left_behind(repository) == []


def test_a_plugin_that_base_lacks_is_left_out_and_one_outside_is_shared(repository, tmp_path):
    commit = repository.git("rev-parse", "HEAD")
    (repository.path / "new.py").write_text("x")
    outside = tmp_path / "outside.py"
    outside.write_text("x")
    with revisions.sides(repository.path, commit, plugins=["new.py", str(outside)]) as (base, head):
        assert base.plugins == (str(outside),)
        assert len(head.plugins) == 2
        assert any("new.py is new" in note for note in base.notes)
        assert any("same file on both sides" in note for note in base.notes)
    with pytest.raises(UsageError, match="no such file"), revisions.here(plugins=["absent.py"]):
        pass


def test_base_of_this_repository_takes_attentions_from_the_worktree(tmp_path, monkeypatch):
    root = Path(revisions.__file__).resolve().parents[2]
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    monkeypatch.chdir(root)
    commit = revisions.resolve(root, "HEAD")
    with revisions.sides(root, commit, plugins=[]) as (base, head):
        assert base.origin != head.origin
        assert Path(base.origin[0]).name == "attentions"
        assert (Path(base.path[0]) / "harness").resolve() == root / "harness"


def project(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_only_dependencies_ask_for_another_environment(tmp_path):
    one = project(tmp_path / "a", pyproject__toml='[project]\nname="a"\nversion="1"\ndependencies=["torch"]\n')
    two = project(
        tmp_path / "b", pyproject__toml='[project]\nname="a"\nversion="2"\ndependencies=["torch"]\n[tool.ruff]\n'
    )
    assert interpreter.differences(one, two) == []
    assert interpreter.of(one, two, tmp_path / "venv")[0] == sys.executable
    (two / "constraints.txt").write_text("torch==2\n")
    (two / "pyproject.toml").write_text('[project]\nname="a"\nversion="1"\ndependencies=["torch>=2"]\n')
    assert interpreter.differences(one, two) == ["constraints.txt", "pyproject.toml"]


def test_an_environment_is_made_from_what_the_revision_asks_for(tmp_path):
    tree = project(
        tmp_path / "a", pyproject__toml='[project]\nname="a"\n', constraints__txt="", requirements__txt="numpy\n"
    )
    create, install = interpreter.commands(tree, tmp_path / "venv", uv="/bin/uv")
    assert create[:2] == ["/bin/uv", "venv"]
    assert install[1:5] == ["pip", "install", "--quiet", "--python"]
    wanted = ["--constraint", str(tree / "constraints.txt"), "--requirement", str(tree / "requirements.txt"), str(tree)]
    assert install[6:-1] == wanted
    create, install = interpreter.commands(tree, tmp_path / "venv", uv=None)
    assert create[1:3] == ["-m", "venv"]
    assert install[1:4] == ["-m", "pip", "install"]


def test_an_environment_that_cannot_be_built_names_the_way_out(tmp_path, monkeypatch):
    tree = project(tmp_path / "a")
    monkeypatch.setattr(interpreter, "commands", lambda *a, **k: [["false"]])
    with pytest.raises(Failure, match="--base-python"):
        interpreter.build(tree, tmp_path / "venv")
    monkeypatch.setattr(interpreter, "commands", lambda *a, **k: [["/no/such/program"]])
    with pytest.raises(Failure, match="cannot be built"):
        interpreter.build(tree, tmp_path / "venv")

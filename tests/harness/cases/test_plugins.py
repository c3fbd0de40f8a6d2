"""A file of data never runs code: plugins are run where the call names them, and are one file for all of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import cli
from harness.cases.plugins import check_named, check_same, digests
from harness.cases.space import Sweep
from harness.errors import UsageError
from harness.store import runs as store
from harness.store.runs import Store
from harness.sweep import conduct

EVIL = "from pathlib import Path\nPath({!r}).touch()\nraise SystemExit('ran')\n"


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A run whose sweep.toml names a plugin beside it, and the file that shows that it ran."""
    monkeypatch.chdir(tmp_path)
    ran, plugin = tmp_path / "ran", tmp_path / "r" / "evil.py"
    wanted = Sweep.parse({"attention": "full", "n": 64, "plugin": "r/evil.py", "metrics": "latency"})
    with Store.open(tmp_path / "r", metrics=wanted.metrics, sweep=wanted.to_toml()):
        pass
    plugin.write_text(EVIL.format(str(ran)))
    return tmp_path / "r", ran


def test_a_resumed_run_does_not_run_what_its_folder_names(
    planted: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, ran = planted
    for words in (["run", "--resume", "--out", str(folder)], ["run", "--config", str(folder / store.SWEEP)],
                  ["plan", "--config", str(folder / store.SWEEP)], ["report", str(folder)]):  # fmt: skip
        cli.main(words)
        assert not ran.exists(), words
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith("a file of data runs none; read it, then add --plugin r/evil.py")
    assert f"the run in {folder} names the plugin evil.py, which is code" in said[0]
    assert f"{folder / store.SWEEP} names the plugin evil.py, which is code" in said[1]


def test_named_in_this_call_it_runs(planted: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder, ran = planted
    assert cli.main(["run", "--resume", "--out", str(folder), "--plugin", str(folder / "evil.py"), "-q"]) == 2
    assert "evil.py: SystemExit: ran" in capsys.readouterr().err
    assert ran.exists()


def test_an_edited_plugin_is_refused(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("a = 1\n")
    wanted = Sweep.parse({"plugin": str(plugin), "metrics": "latency"})
    with Store.open(tmp_path / "run", metrics=wanted.metrics, sweep=wanted.to_toml()) as run:
        run.write_json(store.ENVIRONMENT, {"schema": 1, "plugins": digests([str(plugin)])})
    moved = tmp_path / "elsewhere" / "mine.py"
    moved.parent.mkdir()
    moved.write_text("a = 1\n")
    for path in (plugin, moved):  # the same file, wherever it lies
        assert conduct.resumed(tmp_path / "run", {"plugin": str(path)}).plugin == (str(path),)
    with pytest.raises(UsageError, match=r"--plugin other\.py differs from the run being resumed, which has mine\.py"):
        conduct.resumed(tmp_path / "run", {"plugin": str(tmp_path / "other.py")})
    plugin.write_text("a = 2\n")
    with pytest.raises(UsageError, match=r"plugin mine.py was edited since this run began \(sha256 [0-9a-f]{16}… then"):
        conduct.resumed(tmp_path / "run", {"plugin": str(plugin)})


def test_digests_and_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"plugin .*absent.py: no such file"):
        digests([str(tmp_path / "absent.py")])
    with pytest.raises(UsageError, match=r"plugin .*: Is a directory"):
        digests([str(tmp_path)])
    check_same({}, {"a.py": "1"})
    check_named((), {}, source="s")
    check_named(("a.py",), {"plugin": ["b.py"]}, source="s")

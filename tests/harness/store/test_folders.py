"""Runs as things on disk: found, told in a line, tagged, deleted; nothing else goes with them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import making
import pytest

from harness.errors import UsageError
from harness.store import folders, tags
from harness.store import runs as store
from harness.store.runs import Store, StoreError


def a_run(folder: Path) -> Path:
    """A run of one measured and one failed case."""
    with Store.open(folder, metrics=making.METRICS, sweep="n = [64]\n") as run:
        run.append(making.rows(making.case()), {"latency": [1.0, 1.5, 2.0]})
        run.append(making.failed(making.case(n=256)), {})
        run.write_json(store.ENVIRONMENT, {"schema": 1})
    return folder


def test_runs_are_found_at_any_depth_but_not_through_links_or_in_hidden_folders(tmp_path: Path) -> None:
    wanted = [a_run(tmp_path / name) for name in ("a", "b/c", "b/c/eval", "d")]
    a_run(tmp_path / ".hidden")
    a_run(tmp_path.parent / f"{tmp_path.name}-outside")
    (tmp_path / "link").symlink_to(tmp_path.parent / f"{tmp_path.name}-outside")
    assert folders.below(tmp_path) == wanted
    assert folders.below(tmp_path / "a") == [tmp_path / "a"]
    assert folders.below(tmp_path / "nowhere") == []


def test_a_summary_tells_a_run(tmp_path: Path) -> None:
    run = a_run(tmp_path / "deep" / "one")
    tags.change_tags(run, add=["quiet"])
    told = folders.summary(run, under=tmp_path)
    assert (told.name, told.cases, told.statuses, told.tags) == ("deep/one", 2, {"ok": 1, "oom": 1}, ("quiet",))
    assert (told.devices, told.commits, told.ended_utc) == (("cpu",), ("c0ffee",), "2026-01-01T00:00:00Z")
    assert told.bytes == sum(path.stat().st_size for path in run.iterdir())
    assert not told.fault


def test_a_summary_tells_what_cannot_be_read(tmp_path: Path) -> None:
    run = a_run(tmp_path / "one")
    (run / store.ENVIRONMENT).write_text("{")
    assert "is damaged" in folders.summary(run, under=tmp_path).fault
    (run / store.ENVIRONMENT).unlink()
    path = run / store.MEASUREMENTS
    path.write_bytes(path.read_bytes().replace(b",oom,", b",lost,"))
    told = folders.summary(run, under=tmp_path)
    assert (told.cases, told.fault.partition(":")[0]) == (1, "1 rows cannot be read")


# Tags


def test_tags_are_kept_sorted_and_once(tmp_path: Path) -> None:
    run = a_run(tmp_path / "one")
    assert tags.read_tags(run) == ()
    assert tags.change_tags(run, add=["paper", "a-1", "paper"]) == ("a-1", "paper")
    assert tags.change_tags(run, add=["v2"], drop=["paper"]) == ("a-1", "v2")
    assert json.loads((run / tags.TAGS).read_text()) == {"tags": ["a-1", "v2"]}
    assert tags.change_tags(run, drop=["a-1", "v2"]) == ()
    assert len(store.read(run)) == 3  # the rows are as they were


@pytest.mark.parametrize("word", ["", " ", "-x", "a b", "a,b", "ü", "x" * 41, "../x", "a\n"])
def test_what_is_no_tag_is_refused(tmp_path: Path, word: str) -> None:
    run = a_run(tmp_path / "one")
    with pytest.raises(UsageError, match="is no tag: a tag is up to 40 letters"):
        tags.change_tags(run, add=[word])
    assert not (run / tags.TAGS).exists()


def test_a_tag_that_it_has_not_and_what_is_no_run_are_refused(tmp_path: Path) -> None:
    run = a_run(tmp_path / "one")
    tags.change_tags(run, add=["paper"])
    with pytest.raises(UsageError, match="did you mean 'paper'"):
        tags.change_tags(run, drop=["papre"])
    with pytest.raises(StoreError, match="is not a run"):
        tags.change_tags(tmp_path, add=["paper"])


@pytest.mark.parametrize("text", ["", "[]", '{"tags": 3}', '{"tags": ["a b"]}', '{"tags": [1]}', '{"tags": ["a"'])
def test_damaged_tags_are_told_and_left(tmp_path: Path, text: str) -> None:
    run = a_run(tmp_path / "one")
    (run / tags.TAGS).write_text(text)
    with pytest.raises(StoreError, match=r"tags\.json is damaged"):
        tags.change_tags(run, add=["paper"])
    assert (run / tags.TAGS).read_text() == text


def test_tags_are_not_read_or_written_through_a_link(tmp_path: Path) -> None:
    run, outside = a_run(tmp_path / "one"), tmp_path / "outside.json"
    outside.write_text('{"tags": ["secret"]}')
    (run / tags.TAGS).symlink_to(outside)
    with pytest.raises(StoreError, match="links inside a run are not followed"):
        tags.change_tags(run, add=["paper"])
    assert outside.read_text() == '{"tags": ["secret"]}'


# Deleting


def test_a_run_is_deleted_with_its_figures_and_what_a_link_in_it_leads_to_stays(tmp_path: Path) -> None:
    run, outside = a_run(tmp_path / "one"), tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("mine")
    (run / "figures").mkdir()
    (run / "figures" / "latency.png").write_bytes(b"x")
    (run / "figures" / "elsewhere").symlink_to(outside)
    (run / "variants").symlink_to(outside)
    a_run(run / "eval")
    files, held = folders.check_removable(run)
    assert (files, held > 0) == (9, True)
    folders.remove(run)
    assert not run.exists()
    assert (outside / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("strange", ["notes.txt", "data/x", "figures.png", ".git/config", "eval/notes.txt"])
def test_a_run_with_what_no_run_writes_is_not_deleted(tmp_path: Path, strange: str) -> None:
    run = a_run(tmp_path / "one")
    if strange.startswith("eval"):
        a_run(run / "eval")
    (run / strange).parent.mkdir(exist_ok=True)
    (run / strange).write_text("mine")
    before = sorted(run.rglob("*"))
    with pytest.raises(StoreError, match=f"holds what no run writes: {strange.split('/')[0]}"):
        folders.remove(run)
    assert sorted(run.rglob("*")) == before


def test_what_is_no_run_is_not_deleted(tmp_path: Path) -> None:
    run = a_run(tmp_path / "one")
    (tmp_path / "link").symlink_to(run)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / store.MEASUREMENTS).write_text("a,b\n1,2\n")
    for path, told in (
        (tmp_path, "is not a run"), (tmp_path / "nowhere", "is not a run"), (tmp_path / "link", "is a link"),
        (tmp_path / "other", "foreign columns"), (run / store.MEASUREMENTS, "is not a run"),
    ):  # fmt: skip
        with pytest.raises(StoreError, match=told):
            folders.remove(path)
    assert len(store.read(run)) == 3
    assert (tmp_path / "other" / store.MEASUREMENTS).exists()


def test_a_run_that_is_being_written_is_not_deleted(tmp_path: Path) -> None:
    with Store.open(tmp_path / "one", metrics=making.METRICS) as run:
        run.append(making.rows(making.case()), {})
        with pytest.raises(StoreError, match="is being written by a run; nothing was deleted"):
            folders.remove(tmp_path / "one")
        assert len(store.read(tmp_path / "one")) == 2
    folders.remove(tmp_path / "one")


def test_what_a_crash_leaves_can_be_deleted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows go last: until then it is a run."""
    run = a_run(tmp_path / "one")
    unlink = os.unlink

    def killed(path: str, *, dir_fd: int | None = None) -> None:
        if path == store.SWEEP:
            raise KeyboardInterrupt
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        folders.remove(run)
    monkeypatch.undo()
    assert not (run / store.ENVIRONMENT).exists()
    assert folders.below(tmp_path) == [run]
    folders.remove(run)
    assert not run.exists()

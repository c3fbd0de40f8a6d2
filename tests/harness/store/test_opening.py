"""One door to the files of a run: links, pipes, folders, devices and endless files are refused, and at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import making
import pytest

from harness import cli
from harness.errors import reason
from harness.store import opening
from harness.store import runs as store
from harness.store.csvfile import StoreLost
from harness.store.runs import Store

FILES = (store.MEASUREMENTS, store.SAMPLES, store.ENVIRONMENT, store.SWEEP, "metrics.csv")
SECRET = "n = [64]  # what the owner never meant to show"


def link(path: Path) -> None:
    outside = path.parent.parent / "outside"
    outside.write_text(SECRET)
    path.symlink_to(outside)


def socket_at(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # a socket's path has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


PLANTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "link": (link, "it is a link, and links inside a run are not followed"),
    "loop": (lambda path: path.symlink_to(path.name), "it is a link, and links inside a run are not followed"),
    "pipe": (os.mkfifo, "it is a pipe, not a file"),
    "folder": (Path.mkdir, "it is a folder, not a file"),
    "socket": (socket_at, "it is a socket, not a file"),
    "endless": (endless, "it has 1099511627776 bytes; at most"),
}


def a_run(folder: Path) -> Path:
    with Store.open(folder, metrics=making.METRICS, sweep="n = [64]\n") as run:
        run.append(making.rows(making.case()), {"latency": [1.0, 2.0, 3.0]})
        run.write_json(store.ENVIRONMENT, {"schema": 1})
    return folder


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_no_file_of_a_run_is_refused_by_every_command(
    kind: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], catalogue: object
) -> None:
    plant, message = PLANTED[kind]
    folder = a_run(tmp_path / "run")
    (folder / name).unlink(missing_ok=True)
    plant(folder / name)
    commands = {
        "show": ["show", str(folder)], "report": ["report", str(folder)],
        "compare": ["compare", str(folder), str(folder)],
        "plot": ["plot", str(folder), "--figure", "curves,latency", "--format", "svg"],
        "resume": ["run", "--resume", "--out", str(folder)],
    }  # fmt: skip
    reads = {
        store.MEASUREMENTS: commands, store.ENVIRONMENT: commands, store.SWEEP: ("report", "resume"),
        store.SAMPLES: ("compare", "resume"), "metrics.csv": ("plot",),
    }[name]  # fmt: skip
    for command in reads:
        code = cli.main(commands[command])
        said = capsys.readouterr().err
        looked = kind == "endless" and command == "resume" and name in (store.MEASUREMENTS, store.SAMPLES)
        wanted = "has foreign columns" if looked else message  # the first line is looked at before all is read
        assert (code, wanted in said, len(said.splitlines())) == (2, True, 1), (command, said)
        assert str(folder / name) in said
    assert not (folder / "report.html").exists() or SECRET not in (folder / "report.html").read_text()


def test_a_report_is_not_written_over_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = a_run(tmp_path / "run")
    os.mkfifo(folder / "report.html")
    assert cli.main(["report", str(folder)]) == 2
    assert "it is a pipe, not a file; choose another --out" in capsys.readouterr().err


def test_devices_are_not_opened() -> None:
    with pytest.raises(OSError, match="it is a device") as caught:
        opening.read(Path("/dev/zero"))
    assert reason(caught.value) == "it is a device, not a file"
    with pytest.raises(OSError, match="at most 100 are read"):
        opening.read(Path("/dev/zero"), most=100, pipes=True)  # named by the user: read, and not without end


def test_a_file_that_becomes_a_pipe_between_two_looks_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(opening, "_refuse", lambda *anything, **named: None)
    with pytest.raises(OSError, match="it is a pipe, not a file"):
        opening.opened(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(OSError):  # noqa: PT011 - the system's own: ELOOP
        opening.opened(tmp_path / "link")


def replaced(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


LOSSES: dict[str, tuple[Callable[[Path], object], str]] = {
    "deleted": (Path.unlink, "was deleted while it was written to; rows are lost"),
    "replaced": (replaced, "was replaced while it was written to; rows are lost"),
    "moved": (lambda path: path.parent.rename(path.parent.with_name("away")), "was deleted while it was written to"),
    "emptied": (lambda path: path.write_bytes(b""), "was changed while it was written to: it has 0 bytes, not the"),
    "appended": (lambda path: path.open("ab").write(b"x"), "was changed while it was written to"),
}


@pytest.mark.parametrize("name", [store.MEASUREMENTS, store.SAMPLES])
@pytest.mark.parametrize("loss", LOSSES)
def test_rows_that_would_be_lost_are_told_at_once(loss: str, name: str, tmp_path: Path) -> None:
    """What is appended to a file that was deleted goes with it, and the system says nothing."""
    lose, message = LOSSES[loss]
    with Store.open(tmp_path / "run", metrics=making.METRICS) as run:
        run.append(making.rows(making.case()), {"latency": [1.0]})
        lose(tmp_path / "run" / name)
        with pytest.raises(StoreLost) as caught:
            run.append(making.rows(making.case(n=128)), {"latency": [1.0]})
        assert caught.value.code == 5
        assert message in str(caught.value)
        assert "intact" not in str(caught.value)
        assert run.done == {making.case().case_id}


def test_nothing_is_called_intact_in_a_folder_that_is_gone(tmp_path: Path) -> None:
    with Store.open(tmp_path / "run", metrics=making.METRICS) as run:
        run.append(making.rows(making.case()), {})
        (tmp_path / "run").rename(tmp_path / "away")
        with pytest.raises(StoreLost, match="was deleted while it was written to; rows are lost"):
            run.write_json(store.ENVIRONMENT, {})


def test_a_link_to_a_run_is_followed(tmp_path: Path) -> None:
    a_run(tmp_path / "run")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert len(store.read(tmp_path / "run")) == len(store.read(tmp_path / "link")) == 2


def test_figures_are_not_written_through_a_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, outside = a_run(tmp_path / "run"), tmp_path / "outside"
    outside.mkdir()
    (run / "figures").symlink_to(outside)
    assert cli.main(["plot", str(run), "--figure", "latency", "--format", "png"]) == 2
    assert "leads out of the run" in capsys.readouterr().err
    assert not list(outside.iterdir())


def test_a_planted_partial_file_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    with Store.open(tmp_path / "run", metrics=("latency",)) as opened:
        (tmp_path / "run" / ".environment.json.partial").symlink_to(victim)
        opened.write_json(store.ENVIRONMENT, {"schema": 1})
    assert victim.read_text() == "mine"
    assert not (tmp_path / "run" / store.ENVIRONMENT).is_symlink()

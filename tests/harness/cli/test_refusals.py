"""What the system refuses is told in one line, never as a fault of harness: every command, in what may befall it.

A command runs in a fork of this process, where everything is imported already: its streams, limits and rights are its
own.
"""

from __future__ import annotations

import errno
import importlib.readers  # the report's assets are read by it, and nobody may look for it
import os
import pkgutil
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pytest
from stored import Told, stored

import harness
from harness import cli
from harness.store import runs as store
from harness.store.record import COLUMNS

NOBODY = 65534
LONG = "x" * 300
USUAL = ["list", "show {run}", "show {run} --json", "show {run} --csv", "compare {run} {run}", "report {run}",
         "recommend {run} --n 64", "plot {run} --figure latency --format svg", "--version", "--help", ""]  # fmt: skip
HELPS = [f"{name} --help" for name in cli.commands()]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def folder(catalogue: object) -> Iterator[Path]:
    """A run where anybody may go: pytest's own folders are their owner's alone."""
    import matplotlib.figure  # noqa: F401 - what the commands import, once for all forks: nobody may read the libraries
    import plotly  # noqa: F401

    for module in pkgutil.walk_packages(harness.__path__, "harness."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        lines = (("flash", None), ("anchor", 16))
        told = [Told(name, n=n, m=m, ms=n / 64, error=0.1) for name, m in lines for n in (64, 128)]
        stored(Path(place, "run"), told)
        yield Path(place, "run")


def forked(words: str, run: Path, prepare: Callable[[], object] = lambda: None) -> Ended:
    """Run a command line in a fork, after `prepare`; its exit code is that of the whole process, as Python ends it."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            code = 99
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                prepare()
                sys.stdout, sys.stderr = (stream(number) for number in (1, 2))  # type: ignore[assignment]
                code = cli.main([word.format(run=run) for word in words.split()])
                if sys.stdout is not None:
                    sys.stdout.flush()
            except BaseException as error:
                os.write(err.fileno(), repr(error).encode())
            finally:
                os._exit(code)
        deadline = time.monotonic() + 60
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.kill(child, 9)
                os.waitpid(child, 0)
                raise AssertionError(f"{words} hangs")
            time.sleep(0.01)
        for file in (out, err):
            file.seek(0)
        return Ended(os.waitstatus_to_exitcode(ended[1]), out.read(), err.read())


def stream(number: int) -> TextIO | None:
    """As Python sets it up: none where it is closed."""
    try:
        return open(number, "w", closefd=False)
    except OSError:
        return None


def onto(number: int, path: str) -> Callable[[], object]:
    """The shell's `1>path`."""
    return lambda: os.dup2(os.open(path, os.O_WRONLY), number)


def closed(number: int) -> Callable[[], object]:
    """The shell's `1>&-`."""
    return lambda: os.close(number)


@pytest.mark.parametrize("words", [*USUAL, *HELPS])
def test_a_full_disk_behind_standard_output_is_told(words: str, folder: Path) -> None:
    ended = forked(words, folder, onto(1, "/dev/full"))
    assert (ended.code, ended.err) == (5, "harness: cannot write to standard output: no space left on the disk\n")


@pytest.mark.parametrize("words", USUAL)
def test_streams_that_are_closed_or_full_change_nothing_else(words: str, folder: Path) -> None:
    usual = forked(words, folder)
    assert usual.code == 0
    assert forked(words, folder, closed(1)) == Ended(0, "", usual.err)
    assert forked(words, folder, closed(0)) == usual
    for befallen in (closed(2), onto(2, "/dev/full")):
        assert forked(words, folder, befallen) == Ended(0, usual.out, "")
    assert forked("nonsense", folder, onto(2, "/dev/full")) == Ended(2, "", "")
    assert forked("nonsense", folder, closed(2)) == Ended(2, "", "")


@pytest.mark.parametrize("words", ["list", "show {run} --json", "--version", "show --help"])
def test_a_reader_that_leaves_is_no_failure(words: str, folder: Path) -> None:
    def unread() -> None:
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, 1)

    assert forked(words, folder, unread) == Ended(0, "", "")


LONG_WORDS = [
    "show LONG", "show {run}/LONG", "report LONG", "compare LONG {run}", "plot LONG", "recommend LONG --n 64",
    "run --out LONG --n 128", "run --config LONG", "run --resume --out LONG", "run --n 128 --plugin LONG",
    "train classification --out LONG", "train --resume --out LONG", "train detection --data LONG",
    "eval --checkpoint LONG", "check --baseline LONG", "check --update LONG", "check --quick --junit LONG",
    "report {run} --out LONG", "plot {run} --figure latency --out LONG", "plan --plugin LONG", "list --plugin LONG",
    "crossover a b --plugin LONG", "eval --checkpoint {run} --out LONG",
]  # fmt: skip


def one_line(ended: Ended, *codes: int) -> str:
    """What was said, which is one line of ours and no fault of harness'."""
    assert ended.code in codes, ended
    assert ended.err.startswith("harness: "), ended
    assert len(ended.err.splitlines()) == 1, ended
    assert "fault of harness" not in ended.err, ended
    return ended.err


@pytest.mark.parametrize("words", LONG_WORDS)
def test_a_name_that_is_too_long_is_told(words: str, folder: Path) -> None:
    said = one_line(forked(words.replace("LONG", LONG), folder), 2)
    assert "the name is too long: 255 bytes at most" in said or "no such file" in said


@pytest.mark.parametrize("words", USUAL[:8])
def test_too_many_open_files_are_told(words: str, folder: Path) -> None:
    def spent() -> None:
        free = os.open(os.devnull, os.O_RDONLY)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, free + 1))

    ended = forked(words, folder, spent)
    assert "too many open files; ulimit -n allows no more" in one_line(ended, 2, 5)


UNREADABLE = {
    store.MEASUREMENTS: ["show {run}", "report {run}", "compare {run} {run}", "plot {run}", "recommend {run} --n 64"],
    store.ENVIRONMENT: ["show {run}", "report {run}", "recommend {run} --n 64"],
    store.SAMPLES: ["compare {run} {run}"], store.SWEEP: ["report {run}", "run --resume --out {run}"],
    "": ["show {run}", "report {run}", "compare {run} {run}", "plot {run}", "run --resume --out {run}",
         "run --n 128 --out {run}", "train classification --out {run}", "eval --checkpoint {run}",
         "check --baseline {run}/b.csv", "run --config {run}/sweep.toml", "plan --n 128 --plugin {run}/p.py"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "words"), [(name, words) for name in UNREADABLE for words in UNREADABLE[name]])
def test_what_may_not_be_read_is_told(name: str, words: str, folder: Path) -> None:
    run = folder.with_name(f"kept-{store.SWEEP}")
    stored(run, [Told("flash", n=64)])
    (run / store.SWEEP).write_text("n = [64]\n")
    mode = 0o000
    os.chmod(run / name, mode)
    try:
        ended = forked(words, run, lambda: os.geteuid() or os.seteuid(NOBODY))
        assert "Permission denied" in one_line(ended, 2)
    finally:
        os.chmod(run / name, 0o755)
        for path in run.iterdir():
            path.unlink()
        run.rmdir()


FOR_WRITING = [
    "report {run}", "plot {run} --figure latency", "run --n 128 --out {run}/new", "run --resume --out {run}",
    "train classification --out {run}/new", "check --update {run}/new/b.csv",
    "check --quick --baseline {run}/b.csv --junit {run}/new/j.xml",
]  # fmt: skip


@pytest.mark.parametrize("words", FOR_WRITING)
def test_where_nothing_may_be_written_it_is_told(words: str, folder: Path) -> None:
    (folder / "report.html").unlink(missing_ok=True)
    os.chmod(folder, 0o555)
    try:
        said = one_line(forked(words, folder, lambda: os.geteuid() or os.seteuid(NOBODY)), 2, 5)
    finally:
        os.chmod(folder, 0o755)
    assert "Permission denied" in said or "may not be written to" in said


@pytest.mark.parametrize("words", USUAL[:8])
def test_a_folder_whose_name_is_not_utf8_is_as_good_as_any(words: str, folder: Path) -> None:
    odd = folder.with_name(os.fsdecode(b"bad\xff"))
    if not odd.exists():
        odd.mkdir()
        for path in folder.glob("*.*"):
            if path.is_file():
                (odd / path.name).write_bytes(path.read_bytes())
    ended = forked(words, odd)
    assert ended.code == 0
    assert "fault" not in ended.err


def test_without_a_place_for_temporary_files_it_is_told(folder: Path) -> None:
    def none() -> None:
        def refuse() -> str:
            raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

        tempfile.gettempdir = refuse  # as it does where TMPDIR, /tmp, /var/tmp and this folder are full or read-only

    for words in ("plan --n 128 --attention full", "run --n 128 --attention full --out {run}/new"):
        assert "No usable temporary directory found in" in one_line(forked(words, folder, none), 5)


def test_memory_that_is_not_there_is_told(folder: Path) -> None:
    def refuse() -> None:
        def read(*anything: object, **named: object) -> None:
            raise MemoryError

        store.read = read  # type: ignore[assignment]

    assert forked("show {run}", folder, refuse).err == "harness: not enough memory\n"


def damaged(folder: Path, tmp_path: Path, **cells: str) -> Path:
    """A copy of a run whose first row has these cells."""
    header, first, *rest = (folder / store.MEASUREMENTS).read_text().splitlines(keepends=True)
    found = first.rstrip("\n").split(",")
    for name, cell in cells.items():
        found[COLUMNS.index(name)] = cell
    (tmp_path / store.MEASUREMENTS).write_text("".join([header, ",".join(found) + "\n", *rest]))
    return tmp_path


@pytest.mark.parametrize("words", USUAL[1:8])
def test_one_bad_row_is_left_out_and_told_once(words: str, folder: Path, tmp_path: Path) -> None:
    run = damaged(folder, tmp_path, n="9" * 20)
    ended = forked(words, run)
    assert ended.code == 0, ended
    assert ended.err.count("rows left out: line 2: n is '99999999999999999999', no whole number from 1 to 2^53") == 1
    assert ended.err.startswith(f"harness: warning: {run / store.MEASUREMENTS}: 1 of ")
    if words.startswith("report"):
        assert "1 that cannot be read; line 2: n is" in (run / "report.html").read_text()


def test_what_is_written_to_a_terminal_moves_no_cursor(folder: Path, tmp_path: Path) -> None:
    (tmp_path / store.MEASUREMENTS).write_bytes(b"a\x1b]0;owned\x07\x1b[2J,b\n1,2\n")
    said = one_line(forked("show {run}", tmp_path), 2)
    assert "unknown a\ufffd]0;owned\ufffd\ufffd[2J; missing" in said
    said = one_line(forked(f"show {'y' * 200}\x1b[31m", tmp_path), 2)
    assert "\x1b" not in said


def test_a_text_of_megabytes_is_told_in_few_letters(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text("n = '" + "7" * 200_000 + "'\n")
    assert len(one_line(forked(f"run --config {tmp_path}/sweep.toml", tmp_path), 2)) < 400
    (tmp_path / store.MEASUREMENTS).write_bytes(b"x" * 10_000_000)
    assert len(one_line(forked("show {run}", tmp_path), 2)) < 400
    assert len(one_line(forked("show {run} --rows " + "z" * 100_000, tmp_path), 2)) < 400


def test_no_cell_of_a_csv_is_a_formula(folder: Path) -> None:
    """Neither a status nor a name: a spreadsheet runs what begins with = + - or @."""
    from harness.store.pivot import as_csv, pivot
    from harness.store.selection import labelled

    frame = labelled(store.read(folder))
    frame["status"] = "=cmd()"
    frame["machine"] = "@sum(1)"
    text = as_csv(pivot(frame, "latency"))
    assert "'=cmd()" in text
    assert not [cell for line in text.splitlines()[1:] for cell in line.split(",") if cell.startswith(("=", "@", "+"))]

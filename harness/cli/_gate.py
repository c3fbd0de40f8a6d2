"""What `harness check` needs beside the gate: its options checked, progress on stderr, and files for CI."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from harness.check import output
from harness.check.decide import FEWEST_PAIRS, PAIRS, PAIRS_THOROUGH
from harness.check.gate import Options, Report
from harness.cli._given import named
from harness.door.progress import columns
from harness.errors import Failure, UsageError, reason
from harness.store import opening

LOG_EVERY_S = 10.0
SELF_TEST, BOTH = ("pool", "trials", "busy"), ("seconds", "threads", "device", "quiet")


def options(
    given: Mapping[str, Any], *, against: str, baseline: Path | None, update: Path | None, junit: Path | None,
    comment: Path | None, history: Path | None, thorough: bool, pairs: int | None, seconds: float, threads: int,
    quick: bool, accept: Sequence[str], base_python: str,
) -> Options:  # fmt: skip
    """The gate's options. Raises UsageError for combinations that contradict each other, and for files that could not
    be written once everything was measured."""
    if quick and update:
        raise UsageError("--update takes a whole run: leave --quick out")
    if quick and (thorough or pairs is not None):
        raise UsageError("--quick times nothing, so it goes with neither --thorough nor --pairs")
    if {"metrics", "budget", "patience"} & set(given):
        raise UsageError(
            "the gate decides itself what to measure: --metrics, --budget and --patience do not go with it"
        )
    if pairs is not None and (pairs <= FEWEST_PAIRS or pairs % 2):
        raise UsageError(f"--pairs takes an even number of at least {FEWEST_PAIRS + 1}, not {pairs}")
    timing(seconds=seconds, threads=threads)
    for option, path in (("--update", update), ("--junit", junit), ("--comment", comment), ("--history", history)):
        if path is not None:
            _writable(option, path)
    if base_python and not os.access(base_python, os.X_OK):
        raise UsageError(f"--base-python {base_python}: not an interpreter that can be run")
    return Options(
        given=given, against=against or None, baseline=baseline, update=update, history=history,
        pairs=pairs or (PAIRS_THOROUGH if thorough else PAIRS), seconds=seconds, threads=threads, quick=quick,
        accept=[name.strip() for text in accept for name in text.split(",") if name.strip()],
        base_python=base_python or None,
    )  # fmt: skip


def self_tests(context: typer.Context, *, asked: bool) -> None:
    """Raise UsageError for an option that a self-test does not heed, or without one the gate."""
    given = [name for name in context.params if named(context, name)]
    heeded = (*SELF_TEST, "self_test", *BOTH)
    wrong = [name for name in given if (name not in heeded if asked else name in SELF_TEST)]
    if wrong:
        options = ", ".join(one.opts[0] for one in context.command.params if one.name in wrong)
        raise UsageError(
            f"--self-test measures cases of its own and does not heed {options}; it goes with "
            f"{', '.join('--' + name for name in (*SELF_TEST, *BOTH))}"
            if asked else f"{options}: only with --self-test FOLDER"
        )  # fmt: skip


def timing(*, seconds: float, threads: int) -> None:
    """Raise UsageError for seconds or threads that no process can be timed with."""
    if not 0 < seconds <= 60:
        raise UsageError(f"--seconds takes a number above 0 and up to 60, not {seconds:g}")
    if not 1 <= threads <= 1024:
        raise UsageError(f"--threads takes a number from 1 to 1024, not {threads}")


def _writable(option: str, path: Path) -> None:
    above = next(parent for parent in path.absolute().parents if parent.exists())
    why = (
        "it is a folder" if path.is_dir()
        else f"{above} is a file" if not above.is_dir()
        else f"{above} may not be written to" if not opening.writable(above)
        else ""
    )  # fmt: skip
    if why:
        raise UsageError(f"{option} {path} cannot be written: {why}")


def publish(path: Path, text: str) -> None:
    """Write a report file. Raises Failure."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"cannot write {path}: {reason(error)}") from None


class Progress:
    """A listener of the gate: a live line on a terminal, a plain one now and then in a log; stderr only.

    quiet: warnings alone.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.told, self.what, self.dirty = 0.0, "", False

    def say(self, text: str) -> None:
        """What begins now."""
        self.close()
        if not self.quiet or text.startswith("warning"):
            print(text, file=sys.stderr, flush=True)

    def step(self, done: int, total: int, what: str) -> None:
        """How far it is."""
        if self.quiet:
            return
        text = f"[{done}/{total}] {what}"
        now = time.monotonic()
        if self.live:
            sys.stderr.write("\r\x1b[K" + text[: columns() - 1])
            sys.stderr.flush()
            self.dirty = True
        elif what != self.what or now - self.told > LOG_EVERY_S or done == total:
            print(text, file=sys.stderr, flush=True)
            self.told, self.what = now, what

    def close(self) -> None:
        """Leave the cursor on an empty line."""
        if self.dirty:
            sys.stderr.write("\r\x1b[K")
            self.dirty = False

    def github(self, report: Report, code: int) -> None:
        """The step summary and annotations, where GitHub Actions runs this."""
        summary = os.environ.get("GITHUB_STEP_SUMMARY")
        if summary:
            try:
                with open(summary, "a", encoding="utf-8") as file:
                    file.write(output.markdown(report, code))
            except OSError as error:
                self.say(f"warning: cannot write the step summary: {reason(error)}")
        if os.environ.get("GITHUB_ACTIONS") == "true":
            for line in output.workflow_commands(report):
                print(line, file=sys.stderr, flush=True)

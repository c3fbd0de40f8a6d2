"""A run folder in whatever order things befall it: measured, killed, torn, resumed, full, edited, read.

Hypothesis chooses the steps and shrinks those that fail. The model is a dictionary: which cases were told to be there.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import making
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from harness.store import runs as store
from harness.store.runs import Store, StoreError, StoreFull, StoreLost

SIZES = [64 << at for at in range(12)]


class RunFolder(RuleBasedStateMachine):
    """One folder, at most one process that writes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="machine-"))
        self.run: Store | None = None
        self.told: dict[str, bytes] = {}  # case_id: its lines, as they were when they were told
        self.begun = False
        self.fsync, os.fsync = (
            os.fsync,
            lambda handle: None,
        )  # nothing here depends on it, and it takes most of the time

    def teardown(self) -> None:
        os.fsync = self.fsync
        self._let_go()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _let_go(self) -> None:
        if self.run is not None:
            self.run.__exit__()
            self.run = None

    @property
    def path(self) -> Path:
        return self.folder / store.MEASUREMENTS

    @precondition(lambda self: self.run is None)
    @rule()
    def open(self) -> None:
        self.run = Store.open(self.folder, metrics=making.METRICS, resume=self.begun, sweep="n = [64]\n")
        self.begun = True
        assert self.run.done == set(self.told)

    @precondition(lambda self: self.run is None and self.told)
    @rule()
    def begin_anew(self) -> None:
        """Refused, whatever is there."""
        before = self.path.read_bytes()
        try:
            Store.open(self.folder, metrics=making.METRICS)
            raise AssertionError("a run was begun over another")
        except StoreError:
            assert self.path.read_bytes() == before

    @precondition(lambda self: self.run is not None)
    @rule(n=st.sampled_from(SIZES), failed=st.booleans(), samples=st.integers(0, 3))
    def measure(self, n: int, failed: bool, samples: int) -> None:
        assert self.run is not None
        case = making.case(n=n)
        if case.case_id in self.run.done:
            return
        before = self.path.read_bytes()
        self.run.append(
            making.failed(case) if failed else making.rows(case, note='a "note"'), {"latency": [1.5] * samples}
        )
        self.told[case.case_id] = self.path.read_bytes()[len(before) :]

    @precondition(lambda self: self.run is not None)
    @rule(n=st.sampled_from(SIZES), room=st.integers(0, 700), code=st.sampled_from([errno.ENOSPC, errno.EIO]))
    def meet_a_full_disk(self, n: int, room: int, code: int) -> None:
        """The case is there as a whole or not at all."""
        assert self.run is not None
        case, real, left = making.case(n=n), os.write, [room]
        if case.case_id in self.run.done:
            return
        before = self.path.read_bytes()

        def write(handle: int, data: Any) -> int:
            part = bytes(data)[: left[0]]
            if not part:
                raise OSError(code, os.strerror(code))
            left[0] -= len(part)
            return real(handle, part)

        os.write = write
        try:
            self.run.append(making.rows(case), {"latency": [2.5]})
            self.told[case.case_id] = self.path.read_bytes()[len(before) :]
        except StoreFull:
            assert self.path.read_bytes() == before
        finally:
            os.write = real

    @rule()
    def kill(self) -> None:
        """The process ends; the system closes its files."""
        self._let_go()

    @precondition(lambda self: self.run is None and self.begun)
    @rule(count=st.integers(1, 900))
    def tear(self, count: int) -> None:
        """The last bytes never reached the disk: cases that lost a byte are measured again."""
        data = self.path.read_bytes()
        kept = data[: max(0, len(data) - count)]
        self.path.write_bytes(kept)
        self.told = {case_id: lines for case_id, lines in self.told.items() if lines in kept}

    @precondition(lambda self: self.run is None and self.begun)
    @rule(text=st.binary(min_size=1, max_size=80).filter(lambda data: b"\n" not in data))
    def leave_a_torn_line(self, text: bytes) -> None:
        data = self.path.read_bytes()
        self.path.write_bytes(data[: data.rfind(b"\n") + 1] + text if b"\n" in data else data)
        for case_id, lines in self.told.items():
            assert lines in data, case_id

    @precondition(lambda self: self.run is None and self.begun)
    @rule(count=st.integers(1, 200))
    def tear_samples(self, count: int) -> None:
        path = self.folder / store.SAMPLES
        data = path.read_bytes()
        path.write_bytes(data[: max(0, len(data) - count)])

    @precondition(lambda self: self.run is not None and self.told)
    @rule(
        how=st.sampled_from(["delete", "replace", "empty"]), name=st.sampled_from([store.MEASUREMENTS, store.SAMPLES])
    )
    def lose(self, how: str, name: str) -> None:
        """Said at the next case, and nothing is written; put back, the run goes on."""
        assert self.run is not None
        path = self.folder / name
        data = path.read_bytes()
        actions: dict[str, Callable[[], object]] = {
            "delete": path.unlink, "replace": lambda: (path.unlink(), path.write_bytes(data)),
            "empty": lambda: path.write_bytes(b""),
        }  # fmt: skip
        actions[how]()
        case = making.case(n=1 << 20)
        try:
            self.run.append(making.rows(case), {"latency": [1.0]})
            raise AssertionError("a row was written to a file that is not there")
        except StoreLost:
            pass
        self._let_go()
        path.write_bytes(data)

    @precondition(lambda self: self.run is None and self.begun)
    @rule()
    def write_with_windows_line_ends(self) -> None:
        data = self.path.read_bytes().replace(b"\r\n", b"\n")
        self.path.write_bytes(data.replace(b"\n", b"\r\n"))
        self.told = {case: lines.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for case, lines in self.told.items()}

    @precondition(lambda self: self.begun)
    @rule(text=st.sampled_from(["{", "[]", '{"schema": 9}', '{"sessions": 3}']))
    def damage_the_environment(self, text: str) -> None:
        """Whoever goes on or reads is told; mended, all is as before."""
        path = self.folder / store.ENVIRONMENT
        path.write_text(text)
        if self.run is None:
            for use in (lambda: store.read(self.folder), lambda: Store.open(self.folder, metrics=(), resume=True)):
                try:
                    use()
                    raise AssertionError("a damaged environment was taken")
                except StoreError:
                    pass
        path.unlink()

    @invariant()
    def every_case_that_was_told_is_read_once(self) -> None:
        if not self.begun:
            return
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            frame = store.read(self.folder)
        held = frame.drop_duplicates(["case_id", "metric"])
        assert len(held) == len(frame)
        assert set(self.told) <= set(frame["case_id"])


RunFolder.TestCase.settings = settings(
    max_examples=int(os.environ.get("HARNESS_FUZZ", "25")), stateful_step_count=25, deadline=None, database=None,
    derandomize="HARNESS_FUZZ" not in os.environ, suppress_health_check=list(HealthCheck),
)  # fmt: skip
TestRunFolder = RunFolder.TestCase

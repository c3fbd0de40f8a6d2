"""The worker's process as an engine holds it: started, spoken to a line at a time, and ended. No torch.

process = Process(sys.executable)
process.write(b"...\n"); line = process.line(within_s=60)      # WorkerLost says why it is gone
process.end()                                                  # or at once, with every process it has started
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from harness.engines.outcome import WorkerLost
from harness.machine.memory import oom_kills, volunteer

MOST_SAID = 200  # letters of a worker's last line


class Process:
    """A process of harness.measuring.worker, run by `python` and with `path` before this checkout's own."""

    def __init__(self, python: str, path: Sequence[str] = ()) -> None:
        self._pending, self._oom_kills = b"", oom_kills()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        self._popen = subprocess.Popen(
            [python, "-P", "-m", "harness.measuring.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=_import_path(path),
            start_new_session=True,
        )  # fmt: skip
        volunteer(self._popen.pid)

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        return self._popen.pid

    @property
    def has_ended(self) -> bool:
        """Whether it is gone."""
        return self._popen.poll() is not None

    def write(self, line: bytes) -> None:
        """Ask it. Raises WorkerLost."""
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(line)
            self._popen.stdin.flush()
        except OSError:
            raise self._lost() from None

    def line(self, within_s: float) -> bytes:
        """What it answers. Raises WorkerLost."""
        out = self._popen.stdout
        assert out is not None
        deadline = time.monotonic() + within_s
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise WorkerLost("timeout", f"no result after {within_s:g} s; raise --timeout to wait longer")
                chunk = os.read(out.fileno(), 1 << 16)
                if not chunk:
                    raise self._lost()
                self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def kill(self) -> None:
        """End it at once with every process it has started, from any thread; `end` is still due."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    def end(self) -> None:
        """Let it end by closing its stdin, and wait for that."""
        process = self._popen
        try:
            process.stdin.close()  # type: ignore[union-attr]
            process.wait(timeout=10)
        except (subprocess.TimeoutExpired, OSError):
            process.kill()
            process.wait()
        process.stdout.close()  # type: ignore[union-attr]
        self._log.close()

    def _lost(self) -> WorkerLost:
        """Why the worker is gone: its exit status, and the last line it wrote."""
        try:
            code = self._popen.wait(timeout=10)
        except subprocess.TimeoutExpired:
            code = None
        said = self._last_words()
        tail = f"; it last said: {said}" if said else ""
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
            if name == "SIGKILL" and oom_kills() > self._oom_kills:
                return WorkerLost("oom", f"the kernel's out-of-memory killer ended the worker{tail}")
            return WorkerLost("error", f"the worker was ended by {name}{tail}")
        return WorkerLost("error", f"the worker exited with status {code}{tail}")

    def _last_words(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - 4096))
        lines = [line.strip() for line in self._log.read().decode("utf-8", errors="replace").splitlines()]
        return next((line[:MOST_SAID] for line in reversed(lines) if line), "")


def _import_path(first: Sequence[str]) -> dict[str, str]:
    """The environment with this checkout importable, whatever the current folder is; `first` goes before it."""
    root = str(Path(__file__).resolve().parents[2])
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*first, root, *([known] if known else [])])}

"""What a command can meet in the system around it: closed or full streams, signals, refusals. No torch.

with streams(), signals():
    ...                      # stderr that cannot be written to is given up in silence; stdout is not
message, code = refused(error)
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from harness.errors import FAILURE, USAGE, Failure, brief, reason
from harness.store.rows import RowsLeftOut

MISNAMED = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)
AGAIN_S = 0.05  # after which a signal that came at a bad moment is sent again
MOST_LETTERS = 2000


class OutputLost(Failure):
    """Standard output takes no more, and what was asked for is not there."""


class Output:
    """Standard output: what it refuses is an answer that nobody got. A pipe whose reader left is BrokenPipeError."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """As a text stream does. Raises OutputLost."""
        return self._try(self.stream.write, text)

    def flush(self) -> None:
        """As a text stream does. Raises OutputLost."""
        self._try(self.stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _try(self, write: Callable[..., Any], *text: str) -> Any:
        try:
            return write(*text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputLost(f"cannot write to standard output: {reason(error)}") from None


class Heedless:
    """A stream for what may get lost: once it cannot be written to, a full log disk say, it is written to no more."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """As a text stream does."""
        try:
            return self.stream.write(text)
        except (OSError, ValueError):  # ValueError: it is closed
            self._give_up()
            return len(text)

    def flush(self) -> None:
        """As a text stream does."""
        try:
            self.stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _give_up(self) -> None:
        self.stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends


@contextmanager
def streams() -> Iterator[None]:
    """Standard streams that are there: one closed by `>&-` is /dev/null, or the next file opened would take its place.

    A warning that rows were left out goes to stderr as a line of ours, once each.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            os.set_inheritable(number, True)
    before = sys.stdout, sys.stderr
    sys.stdout = Output(sys.stdout or open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    sys.stderr = Heedless(sys.stderr or open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    if reconfigure := getattr(before[0], "reconfigure", None):
        reconfigure(errors="replace")  # a terminal that lacks a letter is no reason to fail
    told: set[str] = set()

    def show(message: Any, category: Any, *where: Any, **more: Any) -> None:
        if not issubclass(category, RowsLeftOut):
            usual(message, category, *where, **more)
        elif str(message) not in told:
            told.add(str(message))
            say(f"warning: {message}")

    try:
        with warnings.catch_warnings():
            usual = warnings.showwarning
            warnings.simplefilter("always", RowsLeftOut)
            warnings.showwarning = show
            yield
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def signals() -> Iterator[None]:
    """Ctrl-C, a request to end (SIGTERM) and a terminal that closes (SIGHUP) interrupt, but never inside an import.

    An extension's start-up that meets an exception from Python where it expects none aborts the whole process.
    """

    def interrupt(number: int, frame: Any) -> None:
        if not _importing(frame):
            raise KeyboardInterrupt
        later = threading.Timer(AGAIN_S, os.kill, (os.getpid(), number))
        later.daemon = True
        later.start()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = (signal.SIG_DFL, signal.default_int_handler)
    heard = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # nohup ignores HUP, a shell's background job INT
    before = {each: handler for each in heard if (handler := signal.getsignal(each)) in usual}
    for each in before:
        signal.signal(each, interrupt)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def refused(error: BaseException) -> tuple[str, int] | None:
    """The line and the exit code for what the system refused; None where that is not what happened."""
    if isinstance(error, MemoryError):
        return "not enough memory", FAILURE
    if not isinstance(error, OSError):
        if os.strerror(errno.EMFILE) not in str(error):  # as an extension that cannot be loaded says it
            return None
        error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    named = f"{brief(os.fsdecode(error.filename), 200)}: " if isinstance(error.filename, str | bytes) else ""
    return f"{named}{reason(error)}", USAGE if named and error.errno in MISNAMED else FAILURE


def mute(stream: Any) -> None:
    """Let what is still in a stream's buffer go nowhere, or Python complains again at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError):  # it is no file: what a program put in its place
        os.dup2(null, stream.fileno())
    os.close(null)


def say(message: str) -> None:
    """One line on stderr, without what would move a terminal's cursor or change its colours."""
    text = "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(message.split()))
    print(f"harness: {brief(text, MOST_LETTERS)}", file=sys.stderr, flush=True)


def _importing(frame: Any) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False

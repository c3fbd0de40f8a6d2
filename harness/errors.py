"""The errors that end a command, and the exit code of each. Their message is the whole answer to the user."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

OK, REGRESSION, USAGE, INCONCLUSIVE, NOTHING, FAILURE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
REASONS = {
    errno.ENOSPC: "no space left on the disk", errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only", errno.ENAMETOOLONG: "the name is too long: 255 bytes at most",
    errno.EMFILE: "too many open files; ulimit -n allows no more"}  # fmt: skip


class Told(Exception):
    """An error whose message is cut in the middle where what somebody wrote would make it pages long."""

    def __init__(self, message: object = "") -> None:
        super().__init__(brief(str(message), 2000))


class UsageError(Told, ValueError):
    """What was asked for is not valid: names the value, the rule and the valid choices. Exit code 2."""

    code = USAGE


class NothingToCompare(UsageError):
    """The request is valid but there are no rows to answer it from. Exit code 4."""

    code = NOTHING


class Failure(Told, RuntimeError):
    """The harness or every case of it failed. Exit code 5."""

    code = FAILURE


def reason(error: OSError) -> str:
    """Why the system refused, in words and without the file's name."""
    return REASONS.get(error.errno or 0) or error.strerror or str(error) or type(error).__name__


def brief(text: object, most: int = 80) -> str:
    """A text that somebody else wrote, for a sentence of ours: the middle of a long one is left out, and counted."""
    told = text if isinstance(text, str) else repr(text)
    left = f"…({len(told)} characters)…"
    return told if len(told) <= most else f"{told[: most - len(left) - 10]}{left}{told[-10:]}"


def unknown(what: str, name: str, valid: Iterable[str]) -> str:
    """One sentence: what was asked, the nearest valid name, and all valid names in their order."""
    names, name = [brief(each) for each in valid], brief(name)
    lowered = {valid.lower(): valid for valid in reversed(names)}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    hint = f"; did you mean {lowered[near[0]]!r}?" if near else ";"
    return f"unknown {what} {name!r}{hint} valid: {', '.join(names) or '(none)'}"

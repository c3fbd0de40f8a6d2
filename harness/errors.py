"""The errors that end a command, and the exit code of each. Their message is the whole answer to the user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

OK, REGRESSION, USAGE, INCONCLUSIVE, NOTHING, FAILURE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130


class UsageError(ValueError):
    """What was asked for is not valid: names the value, the rule and the valid choices. Exit code 2."""

    code = USAGE


class NothingToCompare(UsageError):
    """The request is valid but there are no rows to answer it from. Exit code 4."""

    code = NOTHING


class Failure(RuntimeError):
    """The harness or every case of it failed. Exit code 5."""

    code = FAILURE


def unknown(what: str, name: str, valid: Iterable[str]) -> str:
    """One sentence: what was asked, the nearest valid name, and all valid names in their order."""
    names = list(valid)
    lowered = {valid.lower(): valid for valid in reversed(names)}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    hint = f"; did you mean {lowered[near[0]]!r}?" if near else ";"
    return f"unknown {what} {name!r}{hint} valid: {', '.join(names) or '(none)'}"

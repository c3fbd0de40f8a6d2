"""What the cases of one sweep are called beside each other: what all share once, then what differs. No torch.

names = Names(cases)
print(names.shared)          # b=1 h=6 d=64 float32 forward core cpu
print(names.of(case))        # anchor:reference n=4096 m=64
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from harness.store.record import Case

PARTS: dict[str, Callable[[Any], str]] = {
    **{name: f"{name}={{}}".format for name in ("n", "m", "b", "h", "d")},
    **dict.fromkeys(("dtype", "phase", "scope", "device"), str),
}
ALWAYS = "n"  # told with each case: a line without a size reads like a mistake
BRIEF = 90  # letters of a reason


class Names:
    """Short names of cases; of none at all, each by all that it is."""

    def __init__(self, cases: Iterable[Case] = ()) -> None:
        told = list(cases)
        values = {name: {getattr(case, name) for case in told} - {None, ""} for name in PARTS}
        self._alike = {name for name, found in values.items() if len(found) == 1 and name != ALWAYS}
        options = [_options(case) for case in told]
        self._options = [one for one in options[0] if all(one in others for others in options)] if options else []
        self.known = bool(told)
        texts = [PARTS[name](*values[name]) for name in PARTS if name in self._alike]
        self.shared = " ".join([*texts, ";".join(self._options)]).strip()

    def of(self, case: Case) -> str:
        """The case by what others lack: `flash:torch n=4096 train`."""
        if not self.known:
            return str(case)
        own = (name for name in PARTS if name not in self._alike)
        parts = [PARTS[name](value) for name in own if (value := getattr(case, name)) not in (None, "")]
        options = ";".join(one for one in _options(case) if one not in self._options)
        return " ".join([case.label, *parts, options]).strip()


def brief(reason: str) -> str:
    """The first clauses of a reason, as many as are quickly read, and the first in any case."""
    told, *others = reason.split("; ")
    for clause in others:
        if len(told) + len(clause) > BRIEF:
            break
        told += f"; {clause}"
    return told


def _options(case: Case) -> list[str]:
    return [one for one in case.options.split(";") if one]

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
    **dict.fromkeys(("dtype", "phase", "scope", "device", "options"), str),
}
ALWAYS = ("n",)  # told with each case: a line without a size reads like a mistake


class Names:
    """Short names of cases; of none at all, each by all that it is."""

    def __init__(self, cases: Iterable[Case] = ()) -> None:
        told = list(cases)
        values = {name: {getattr(case, name) for case in told} - {None, ""} for name in PARTS}
        partly = {"options"} if any(not case.options for case in told) else set[str]()  # m: of those that have one
        self._alike = {
            name for name, found in values.items() if len(found) == 1 and name not in (*ALWAYS, *partly)
        }  # fmt: skip
        self.known = bool(told)
        texts = (PARTS[name](*values[name]) for name in PARTS if name in self._alike)
        self.shared = " ".join(texts)

    def of(self, case: Case) -> str:
        """The case by what others lack: `flash:torch n=4096 train`."""
        if not self.known:
            return str(case)
        own = (name for name in PARTS if name not in self._alike)
        parts = [PARTS[name](value) for name in own if (value := getattr(case, name)) not in (None, "")]
        return " ".join([case.label, *parts])

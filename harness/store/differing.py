"""What two runs were measured under, side by side: the keys of environment.json and of the sweep that differ. No torch.

for one in differences(Path("results/a"), Path("results/b")).differences: print(one.key, one.a, one.b)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.store.csvfile import StoreError
from harness.store.documents import Damaged, parse_toml
from harness.store.runs import SWEEP, read, read_environment, read_sweep

PASSING = ("run_id", "sessions", "wall_s", "measuring_s", "merged")  # differ between any two runs


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A key of one of the documents, and its value in each run; None where it has none."""

    document: str
    key: str
    a: Any
    b: Any


@dataclass(frozen=True, kw_only=True)
class Unlike:
    """Two runs beside each other: what differs, and how many cases they share and hold alone."""

    differences: tuple[Difference, ...]
    shared: int
    only_a: int
    only_b: int


def differences(a: Path, b: Path) -> Unlike:
    """Environment first, then the sweep, by key. Raises StoreError for what is no run or is damaged."""
    cases = [set(read(folder)["case_id"]) for folder in (a, b)]
    told = []
    for document, found in (
        ("environment", [_environment(folder) for folder in (a, b)]),
        ("sweep", [_sweep(folder) for folder in (a, b)]),
    ):
        for key in sorted({*found[0], *found[1]}):
            first, second = (values.get(key) for values in found)
            if first != second:
                told.append(Difference(document=document, key=key, a=first, b=second))
    return Unlike(
        differences=tuple(told), shared=len(cases[0] & cases[1]), only_a=len(cases[0] - cases[1]),
        only_b=len(cases[1] - cases[0]),
    )  # fmt: skip


def _environment(folder: Path) -> dict[str, Any]:
    document = read_environment(folder)
    return flat({key: value for key, value in document.items() if key not in PASSING})


def _sweep(folder: Path) -> dict[str, Any]:
    data = read_sweep(folder)
    try:
        return flat(parse_toml(data)) if data is not None else {}
    except Damaged as error:
        raise StoreError(f"{folder / SWEEP} is damaged: {error}") from None


def flat(document: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """{"cpu": {"model": "x"}} → {"cpu.model": "x"}; lists stay whole."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        name = f"{above}.{key}" if above else str(key)
        found |= flat(value, name) if isinstance(value, Mapping) and value else {name: value}
    return found

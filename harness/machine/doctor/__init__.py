"""Is this machine fit to measure on? Probes, one file a family, each giving findings; and a trial of its steadiness.

    diagnosis = doctor.examine("cpu", seconds=2)
    for finding in diagnosis.findings: print(finding.level, finding.check, finding.seen)
    print(diagnosis.verdict)

A family is a file here with `findings(place) -> Iterator[Finding]`; adding one is adding a file. Nothing is changed on
the machine: every setting is read only.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.machine.doctor._place import Place as Place
from harness.machine.doctor._place import Snapshot as Snapshot

if TYPE_CHECKING:
    from harness.machine.doctor._trial import Trial

LEVELS = ("ok", "warn", "problem", "unknown")
NEIGHBOURS = ("other work", "virtualisation", "neighbours")  # what a warning of says that others are there now
MOST_NAMED = 2


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at: how it stands, what was seen, why it matters, what to do. value is in `unit`."""

    check: str
    level: str
    seen: str
    why: str
    do: str = ""
    value: float | None = None
    unit: str = ""
    family: str = ""

    def __post_init__(self) -> None:
        assert self.level in LEVELS, self.level


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The findings in their order, the trial they include, and one sentence on what can be told apart here."""

    device: str
    findings: tuple[Finding, ...]
    trial: Trial | None
    verdict: str

    def counts(self) -> dict[str, int]:
        """How many findings there are of each level."""
        return {level: sum(finding.level == level for finding in self.findings) for level in LEVELS}


def examine(
    device: str,
    *,
    seconds: float = 2.0,
    root: Path = Path("/"),
    results: Path = Path("results"),
    nvml: Any = None,
    say: Callable[[str], None] = lambda text: None,
) -> Diagnosis:
    """Look at everything and time a fixed matrix product for `seconds`. Imports torch.

    device: `cpu` or `cuda:<i>`; results: where runs will be written. root and nvml let a test put fakes in place.
    """
    from harness.machine.doctor._attend import attend

    say(f"timing a fixed matrix product on {device} for {seconds:g} s")
    place = attend(device, seconds=seconds, root=root, results=results, nvml=nvml)
    findings = tuple(finding for family in families() for finding in examine_family(family, place))
    return Diagnosis(device=device, findings=findings, trial=place.trial, verdict=verdict(place))


def opening(device: str, *, seconds: float = 2.0) -> str:
    """What a run should know before it begins, in one line: other work and real problems; "" where there are none."""
    found = examine(device, seconds=seconds)
    wrong = [f for f in found.findings if f.level == "problem" or (f.level == "warn" and f.check in NEIGHBOURS)]
    if not wrong:
        return ""
    wrong.sort(key=lambda finding: finding.check not in NEIGHBOURS)
    seen = "; ".join(f"{finding.check}: {finding.seen}" for finding in wrong[:MOST_NAMED])
    effect = f"; effects under {100 * found.trial.effect:.0f} % cannot be seen" if found.trial else ""
    return f"{seen}{effect}. {wrong[0].do[:1].upper()}{wrong[0].do[1:]}; harness doctor tells all"


def families() -> list[str]:
    """The names of the probe families, in alphabetical order."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))


def examine_family(name: str, place: Place) -> Iterator[Finding]:
    """The findings of one family; a probe that breaks is a finding of level unknown, never an exception."""
    from dataclasses import replace

    try:
        for finding in importlib.import_module(f"{__name__}.{name}").findings(place):
            yield replace(finding, family=name)
    except Exception as error:
        yield Finding(
            check=name, level="unknown", seen=f"the probe broke: {type(error).__name__}: {error}", family=name,
            why="What this family of probes would have found is not known.", do="report this line, a fault of harness",
        )  # fmt: skip


def verdict(place: Place) -> str:
    """One sentence: the smallest effect that the trial says can be told apart here."""
    if place.trial is None:
        return f"What can be told apart here is not known: {place.no_trial}."
    effect, floor = place.trial.effect, place.trial.floor
    size = f"factors under about {1 + effect:.1f}" if effect >= 1 else f"effects under about {100 * effect:.1f} %"
    reason = "a run's own precision" if effect <= floor else "this machine's noise"
    return (
        f"While this machine stays as it was during the probe, {size} between two cases of one run on {place.device} "
        f"cannot be told from {reason}."
    )


def own_path(path: Path) -> str:
    """A path as it may be shown: relative where it lies below this folder, its last name elsewhere."""
    try:
        return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else path.name
    except OSError:
        return path.name

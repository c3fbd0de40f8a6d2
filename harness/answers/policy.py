"""What is fastest among equals at every stored size, as a file that `attentions.Policy` decides by. No torch.

    written = write(Path("policy.json"), runs, asked, by="latency", kinds=kinds)
    print(written)                         # policy.json: 24 classes of sizes on AMD-EPYC-2c-cdbb50 (cpu); …

Equals are the exact variants, which compute one function, and the backends of one variant with its m and options. A
class is a measured size: what was fastest there, by how much, and what comes next where that cannot run. Only measured
sizes of scope core are classes: nothing is interpolated.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.answers.candidates import Candidate, Stock, ratio
from harness.answers.known import NO_DEFAULTS
from harness.answers.recommend import measured
from harness.errors import NothingToCompare, UsageError, reason
from harness.figures import Run
from harness.machine.environment import commit
from harness.store import opening
from harness.store.documents import Damaged, parse_json
from harness.store.record import canonical_options, parse_options
from harness.store.replacing import replacing
from harness.store.trained_for import own_options

if TYPE_CHECKING:
    from harness.answers.measure_candidates import Asked

FORMAT, SCHEMA = "attention-policy", 1
MOST_BYTES = 1 << 20  # as much as attentions.Policy reads
EXACT = "exact"
SHAPE = ("b", "h", "n", "d")


@dataclass(frozen=True)
class Written:
    """A policy that was written: its file, how many classes it has, and for which machine and devices."""

    path: Path
    classes: int
    places: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """As `harness recommend --emit … --json` tells it."""
        return {"path": str(self.path), "classes": self.classes, "places": list(self.places)}

    def __str__(self) -> str:
        count = f"{self.classes} class{'es' if self.classes != 1 else ''} of sizes"
        return f'{self.path}: {count} on {", ".join(self.places)}; in Python: attentions.Policy("{self.path}")'


def write(
    path: Path, runs: Sequence[Run], asked: Asked, *, by: str, kinds: Mapping[str, str],
    defaults: Mapping[str, Mapping[str, str]] = NO_DEFAULTS,
) -> Written:  # fmt: skip
    """Write the policy of the rows that are meant, replacing an older policy whole.

    Raises UsageError where the rows are of several machines with one kind of device, and for a file that cannot be
    written; NothingToCompare where nowhere two equals were measured.
    """
    check_target(path)
    stock = asked.stock(runs, by=by, kinds=kinds, defaults=defaults)
    found = [] if stock is None else list(classes(stock, asked))
    if not found:
        raise NothingToCompare(
            "no stored size of scope core has two equals, such as full and flash or two backends of one variant, "
            "of those asked for: there is nothing to decide"
        )
    places: dict[str, set[str]] = {}
    for one in found:
        places.setdefault(one["device"], set()).add(one["machine"])
    for device, machines in places.items():
        if len(machines) > 1:
            raise UsageError(
                f"a policy is for one machine, and these rows of {device} are of {', '.join(sorted(machines))}: "
                "name the runs of one"
            )
    document = {
        "format": FORMAT, "schema": SCHEMA, "by": by, "commit": commit(), "classes": found,
        "time_utc": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "runs": [str(run.folder) for run in runs],
    }  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, several=True) as partial:
            partial.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {reason(error)}") from None
    told = tuple(f"{machine} ({device})" for device, (machine,) in sorted(places.items()))
    return Written(path=path, classes=len(found), places=told)


def check_target(path: Path) -> None:
    """Raise UsageError where the path is a folder or a file that is no policy: such a file is never replaced."""
    try:
        if path.is_dir():
            raise UsageError(f"--emit {path} is a folder; name a file, such as {path / 'policy.json'}")
        if not os.path.lexists(path):
            return
        document = parse_json(opening.read(path, most=MOST_BYTES, links=True))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {reason(error)}; choose another --emit") from None
    except Damaged:
        document = None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UsageError(f"{path} exists and is no policy; it was left untouched: choose another --emit")


def classes(stock: Stock, asked: Asked) -> Iterable[dict[str, Any]]:
    """Each measured size with two equals or more: which is fastest, by how much, and the next."""
    for setting, lines in stock.settings():
        if setting["scope"] != "core" or not asked.means(setting):
            continue
        for n in measured(lines):
            candidates, _ = stock.at(lines, n)
            groups: dict[tuple[str, int | None, str], list[Candidate]] = {}
            for one in candidates:
                if one.between is None and one.backend and _meant(one, asked):
                    groups.setdefault(_equals(one), []).append(one)
            for (among, m, options), own in groups.items():
                first = own[0]
                second = next((one for one in own if one.implementation != first.implementation), None)
                if second is not None:
                    yield _class(setting, n, among, m, options, first, second)


def _class(
    setting: Mapping[str, Any], n: int, among: str, m: int | None, options: str, first: Candidate, second: Candidate
) -> dict[str, Any]:  # fmt: skip
    margin = ratio(second, first)
    shape = {name: n if name == "n" else int(setting[name]) for name in SHAPE}
    return {
        "among": among, "m": m, "options": options, "device": setting["device"].partition(":")[0],
        "machine": setting["machine"], "dtype": setting["dtype"], "phase": setting["phase"], **shape,
        "choice": first.implementation, "ms": first.time.ms, "fallback": second.implementation,
        "margin": margin.value, "margin_low": margin.low, "margin_high": margin.high,
        "contended": first.contended or second.contended,
    }  # fmt: skip


def _equals(one: Candidate) -> tuple[str, int | None, str]:
    """What computes the same: (exact, no m, what is asked beside), or the variant with its m and options."""
    own = dict(pair.split("=", 1) for pair in own_options(parse_options(one.options)).split())
    return (EXACT, None, canonical_options(own)) if one.exact else (one.attention, one.m, canonical_options(own))


def _meant(one: Candidate, asked: Asked) -> bool:
    names = asked.sweep.attention
    m = "m" not in asked.given or one.m is None or one.m in asked.sweep.m
    return m and (not names or bool({one.attention, one.implementation} & set(names)))

"""`--batch max`: the largest batch of a case that fits, bisected by what is predicted, then by trying. No torch.

    settled(cases, crew, engine, timeout_s=120)       # every case resolved, those of batch max at the batch that fits
    b, how = largest(case, engine, timeout_s=120)     # 352, "largest batch: 352 fits; 368 does not: oom: …"

Without a prediction batches double until one does not fit. A batch is found to within a sixteenth: each try is a call
of the case. What would go on for longer than the sweep's timeout is not tried further, and the note says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from harness.cases.axes import LARGEST, LARGEST_BATCH
from harness.cases.catalogue import Resolution
from harness.engines.place import memory_refusal
from harness.errors import UsageError
from harness.store.record import Case

NOT_TRIED = "not tried"
NEAR = 16  # what fits and what does not are no further apart than a sixteenth of the former


class Engine(Protocol):
    """What knows a case's backend, the free memory, and whether a case can be run: why not, or an empty text."""

    def resolve(self, cases: Sequence[Case]) -> list[Resolution]: ...
    def free_bytes(self) -> int: ...
    def fits(self, case: Case, *, timeout_s: float) -> str: ...


def settled(cases: Sequence[Case], resolver: Any, trier: Any, *, timeout_s: float) -> list[Resolution]:
    """Every case resolved; those whose batch is yet to be found, at the one that fits. Raises UsageError.

    trier: an Engine that tries them; None: the batch is the predicted one, or 1 where nothing is predicted.
    """
    wanted = [case for case in cases if case.b == LARGEST_BATCH]
    found: list[Resolution] = resolver.resolve([case for case in cases if case.b != LARGEST_BATCH])
    engine = resolver if trier is None else trier
    if wanted and not hasattr(engine, "fits"):
        raise UsageError(
            "--batch max is found on one device of this machine: leave --engine ray, --devices and "
            "--sequence-parallel out, or give numbers"
        )
    for case in wanted:
        (one,) = engine.resolve([replace(case, b=1)])
        if one.status != "ok":
            found.append(one)
            continue
        b, how = largest(one.case, engine, timeout_s=timeout_s, tries=trier is not None)
        (resolution,) = engine.resolve([replace(one.case, b=b)])
        found.append(replace(resolution, note="; ".join(filter(None, [how, resolution.note]))))
    return found


def largest(case: Case, engine: Engine, *, timeout_s: float, tries: bool = True) -> tuple[int, str]:
    """The largest batch, and how it was found, for the row's note."""
    free = engine.free_bytes()

    def too_large(b: int) -> str:
        (resolution,) = engine.resolve([replace(case, b=b)])
        return memory_refusal(resolution, free) or ""

    (one,) = engine.resolve([replace(case, b=1)])
    predicted = bisected(too_large, first=1).fits if one.peak_bytes is not None else None
    if not tries:
        return predicted or 1, "largest batch, as predicted" if predicted else "largest batch: known when it was tried"
    begun = time.monotonic()

    def failed(b: int) -> str:
        left = timeout_s - (time.monotonic() - begun)
        if left <= 0:
            return f"{NOT_TRIED}: --timeout {timeout_s:g} had passed"
        return engine.fits(replace(case, b=b), timeout_s=left)

    found = bisected(failed, first=predicted or 1)
    if not found.fits:
        return 1, f"largest batch: not even 1 fits: {found.why}"
    told = found.why if found.why.startswith(NOT_TRIED) else f"does not: {found.why}"
    beyond = f"; {found.refused} {told}" if found.refused else ""
    return found.fits, f"largest batch: {found.fits} fits{beyond}"


class Bisected:
    """fits: the largest that did, 0 for none; refused: the least that did not, 0 for none; why: it did not."""

    def __init__(self) -> None:
        self.fits, self.refused, self.why = 0, 0, ""


def bisected(refused: Callable[[int], str], *, first: int) -> Bisected:
    """From `first` on doubled, or halved, until one fits and one does not; then halfway between, to within a NEARth."""
    found, most = Bisected(), LARGEST["batch"]
    trial = min(first, most)
    while trial:
        if why := refused(trial):
            found.refused, found.why = trial, why
        else:
            found.fits = trial
        if not found.refused:
            trial = min(2 * found.fits, most) if found.fits < most else 0
        elif not found.fits:
            trial = found.refused // 2
        else:
            close = found.refused - found.fits <= max(1, found.fits // NEAR)
            trial = 0 if close else (found.fits + found.refused) // 2
    return found

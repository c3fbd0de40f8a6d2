"""Rows of a machine that was not quiet: how they are marked, and how their marks are read. No torch, no pandas.

    reading = contended(reading, "others had 0.66 of 2 cores", factor=1.5)     # its note begins `contended: …`
    reason(row.note)                                                           # "others had 0.66 of 2 cores", or ""

A marked figure's interval holds what the disturbance may have done to it: from the factor below to the factor above.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from harness.store.record import Reading

MARK = "contended: "
TIMED = (
    "latency",
    "first_call",
    "throughput",
    "flops_rate",
    "roofline_fraction",
    "energy",
    "host",
    "scaling_efficiency",
)


def contended(reading: Reading, why: str, *, factor: float) -> Reading:
    """A timed reading marked, its interval widened by the factor; one that a time out failed is marked, too."""
    if reading.metric not in TIMED or reading.status not in ("ok", "timeout") or not why:
        return reading
    marked = replace(reading, note="; ".join(filter(None, [MARK + why.replace(";", ","), reading.note])))
    if reading.status != "ok" or reading.value is None:
        return marked
    ends = [end for end in (reading.value, reading.ci_low, reading.ci_high) if end is not None]
    return replace(marked, ci_low=min(ends) / factor, ci_high=max(ends) * factor)


def reason(note: str) -> str:
    """Why a row's machine was not quiet; "" for a row that is not marked."""
    parts = (part.strip() for part in note.split(";"))
    return next((part.removeprefix(MARK) for part in parts if part.startswith(MARK)), "")


def suspects(environment: Mapping[str, Any]) -> dict[str, float]:
    """The cases of a run beside which the canary turned out slow only afterwards, and by which factor, by what
    environment.json tells."""
    sessions = environment.get("sessions")
    found: dict[str, float] = {}
    for session in sessions if isinstance(sessions, list) else []:
        named = session.get("suspect_cases") if isinstance(session, dict) else None
        known = named.items() if isinstance(named, dict) else ()
        found |= {case: float(by) for case, by in known if isinstance(by, int | float) and by >= 1}
    return found


def mark_suspects(frame: Any, environment: Mapping[str, Any]) -> Any:
    """A run's rows with those of its suspects marked. A frame without any is returned as it is."""
    named = suspects(environment)
    if not named:
        return frame
    frame = frame.copy()
    wanted = frame["case_id"].isin(named) & frame["metric"].isin(TIMED) & (frame["status"] == "ok")
    wanted &= ~frame["note"].map(lambda note: bool(reason(note)))
    factors = frame.loc[wanted, "case_id"].map(named)
    told = [f"{MARK}the canary took {by:.3g}× its best, as was seen afterwards" for by in factors]
    frame.loc[wanted, "note"] = [
        "; ".join(filter(None, [text, note])) for text, note in zip(told, frame.loc[wanted, "note"], strict=True)
    ]
    frame.loc[wanted, "ci_low"] = frame.loc[wanted, "ci_low"].fillna(frame.loc[wanted, "value"]) / factors
    frame.loc[wanted, "ci_high"] = frame.loc[wanted, "ci_high"].fillna(frame.loc[wanted, "value"]) * factors
    return frame


def banner(found: int, total: int, what: str = "row") -> str:
    """What stands above whatever rests on marked rows; "" where none is."""
    if not found:
        return ""
    verb = "was" if found == 1 else "were"
    return (
        f"CONTENDED: {found} of {total} {what}{'s' if total != 1 else ''} {verb} measured while the machine had other "
        "work; what is said of them may be far off"
    )


def count(notes: Iterable[str]) -> int:
    """How many of these notes are marked."""
    return sum(bool(reason(note)) for note in notes)

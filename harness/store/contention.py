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
LATER = "seen afterwards in the canary"


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


def suspects(environment: Mapping[str, Any]) -> set[str]:
    """The cases of a run beside which the canary turned out bad only afterwards, by what environment.json tells."""
    sessions = environment.get("sessions")
    found: set[str] = set()
    for session in sessions if isinstance(sessions, list) else []:
        named = session.get("suspect_cases") if isinstance(session, dict) else None
        found |= {case for case in named if isinstance(case, str)} if isinstance(named, list) else set()
    return found


def mark_suspects(frame: Any, environment: Mapping[str, Any]) -> Any:
    """A run's rows with those of its suspects marked. A frame without any is returned as it is."""
    named = suspects(environment)
    if not named:
        return frame
    frame = frame.copy()
    wanted = frame["case_id"].isin(named) & frame["metric"].isin(TIMED) & (frame["status"] == "ok")
    wanted &= ~frame["note"].map(lambda note: bool(reason(note)))
    frame.loc[wanted, "note"] = [f"{MARK}{LATER}; {note}".rstrip("; ") for note in frame.loc[wanted, "note"]]
    return frame


def banner(count: int, total: int, what: str = "row") -> str:
    """What stands above whatever rests on marked rows; "" where none is."""
    if not count:
        return ""
    verb = "was" if count == 1 else "were"
    return (
        f"CONTENDED: {count} of {total} {what}{'s' if total != 1 else ''} {verb} measured while the machine had other "
        "work; their figures may be far off"
    )


def count(notes: Iterable[str]) -> int:
    """How many of these notes are marked."""
    return sum(bool(reason(note)) for note in notes)

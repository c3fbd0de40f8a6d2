"""Other work on the machine: the load average, and what ran beside the trial."""

from __future__ import annotations

import os
from collections.abc import Iterator

from harness.machine import system
from harness.machine.doctor import Finding, Place

LOAD_WARN = 0.2  # runnable threads a core, before the trial
BUSY_WARN, BUSY_PROBLEM = 0.1, 0.5  # cores that other work kept busy, beyond those that were free anyway
NAMED = 3


def findings(place: Place) -> Iterator[Finding]:
    yield load(place)
    yield others(place)


def load(place: Place) -> Finding:
    """The load average of the minute before the trial."""
    why = "Other runnable threads take cores, caches and memory bandwidth from the case being timed."
    if place.load is None:
        return Finding(check="load", level="unknown", seen="the load average is not exposed", why=why, do="look at top")
    cores = len(system.cores_of(system.text(place.root, f"{system.CPU}/online") or "")) or len(place.cores)
    level = "warn" if place.load >= LOAD_WARN * cores else "ok"
    return Finding(
        check="load", level=level, seen=f"{place.load:.2f} over the last minute, on {cores} cores", why=why,
        do="" if level == "ok" else "stop other work (top), wait a minute, and run harness doctor again",
        value=place.load, unit="threads",
    )  # fmt: skip


def others(place: Place) -> Finding:
    """The CPU time that other work took during the trial, and the names of the busiest visible processes."""
    why = "Work that comes and goes beside a case makes its samples spread and its median move."
    seconds = place.after.seconds - place.before.seconds
    rate = os.sysconf("SC_CLK_TCK")
    busy_ticks = sum(place.after.ticks.get(name, 0) - place.before.ticks.get(name, 0) for name in system.BUSY)
    if seconds <= 0 or not place.after.ticks or busy_ticks <= 0:
        return Finding(
            check="other work", level="unknown", seen="CPU time is not counted here", why=why,
            do="look at top while harness doctor runs",
        )  # fmt: skip
    own = place.after.own_seconds - place.before.own_seconds
    cores = max(0.0, (busy_ticks / rate - own) / seconds)
    names = _busiest(place, seconds * rate)
    level = "problem" if cores >= BUSY_PROBLEM else "warn" if cores >= BUSY_WARN else "ok"
    return Finding(
        check="other work", level=level, why=why, value=round(cores, 3), unit="cores",
        seen=f"{cores:.2f} cores busy with other work during the probe" + (f": {names}" if names else ""),
        do="" if level == "ok" else "stop it, or give each its own cores with taskset -c",
    )  # fmt: skip


def _busiest(place: Place, ticks: float) -> str:
    used = [
        (used - place.before.processes.get(process, (name, 0))[1], name)
        for process, (name, used) in place.after.processes.items()
        if process != os.getpid()
    ]
    top = sorted((entry for entry in used if entry[0] > 0.02 * ticks), reverse=True)[:NAMED]
    return ", ".join(f"{name} {100 * spent / ticks:.0f} % of a core" for spent, name in top)

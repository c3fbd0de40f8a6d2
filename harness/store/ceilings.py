"""What a device was measured to do, by the session that a row is of: one machine, or hour, is not another. No torch.

    copy, product = of_row(environment, row)                     # GB/s, TFLOP/s; None for what nobody measured
    copy, product = rates(environment, machine="…", device="cpu", dtype="float32")     # of the machine's newest session

A session keeps its own in environment.json, by machine and device. `ceilings` beside the sessions are the newest
machine's, and those of `places` each place's: what earlier versions kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.store.documents import part

TOLERATED = 1.05  # of a ceiling, before a call is said to be quicker than its device
# A CPU's copy that fetches what it overwrites moves three bytes for the two that are counted; one that only reads
# reaches that much more. A GPU's reads and copies are within 1 % of each other.
ABOVE_COPY = {"cpu": 1.5, "cuda": 1.0}
NARROW = ("bfloat16", "float16")  # what a call in them widens on a CPU is held to the products of float32, if quicker
OF_A_ROW = ("machine", "device", "dtype", "time_utc", "run_id")


def of_row(environment: Mapping[str, Any], row: Any, **other: str) -> tuple[float | None, float | None]:
    """`rates` of a frame's row, in its own session; other: as if the row had this dtype."""
    return rates(environment, **{name: str(getattr(row, name)) for name in OF_A_ROW} | other)


def rates(
    environment: Mapping[str, Any], *, machine: str, device: str, dtype: str = "", time_utc: str = "", run_id: str = ""
) -> tuple[float | None, float | None]:
    """GB/s of a copy and TFLOP/s of a product in a dtype; None for what nobody measured.

    Those of the last session on that machine that had begun by a row's time, without a time of the newest; run_id: of
    whose sessions, in an environment of several runs.
    """
    found = [
        (str(session.get("started_utc", "")), own)
        for session in _listed(environment, "sessions")
        if not run_id or session.get("run_id") in (None, run_id)
        if (own := part(part(part(session, "ceilings"), machine), device))
    ]
    found = sorted((one for one in found if _has(one[1], dtype)), key=lambda one: one[0])
    begun = [own for started, own in found if not time_utc or started <= time_utc]
    own = begun[-1] if begun else found[0][1] if found else _of_the_run(environment, machine, device, dtype)
    return _positive(own.get("copy_gb_per_s")), _positive(part(own, "matmul_tflops").get(dtype))


def sessions_of(earlier: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sessions of a run that goes on or is merged, each with its ceilings: those beside them are the last's."""
    sessions = [dict(one) for one in earlier.get("sessions", [])]
    machine, own = str(earlier.get("machine", "")), earlier.get("ceilings", {})
    if own and machine and not any(part(one, "ceilings").get(machine) for one in sessions):
        last = sessions.pop() if sessions else {}
        sessions.append({**last, "ceilings": {**last.get("ceilings", {}), machine: own}})
    return sessions


def _of_the_run(environment: Mapping[str, Any], machine: str, device: str, dtype: str) -> dict[str, Any]:
    """As earlier versions kept them; of several places on one machine the first has the say."""
    places = [place for place in part(environment, "places").values() if isinstance(place, dict)]
    holders = [place for place in places if place.get("machine") == machine]
    if not machine or environment.get("machine", machine) == machine:
        holders.append(dict(environment))
    held = [part(part(holder, "ceilings"), device) for holder in holders]
    return next((own for own in held if own and _has(own, dtype)), next(filter(None, held), {}))


def _has(own: Mapping[str, Any], dtype: str) -> bool:
    return not dtype or dtype in part(own, "matmul_tflops")


def _positive(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _listed(document: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    found = document.get(name)
    yield from (one for one in found if isinstance(one, dict)) if isinstance(found, list) else ()

"""Several runs as one to draw from and to make tables of: the newest row of each case, machines apart. No torch.

run = together(paths, [figures.load(path) for path in paths], folder=Path("results"))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import figures
from harness.store import runs as store
from harness.store.ceilings import sessions_of
from harness.store.documents import part
from harness.store.selection import labelled


@dataclass(frozen=True)
class Together(figures.Run):
    """Several runs as one; raw samples are looked up in the run that a row is of."""

    parts: tuple[figures.Run, ...] = ()

    def samples(self, row: Any, metric: str = "latency") -> Any:
        of = (part for part in self.parts if row.run_id in set(part.whole["run_id"]))
        return next((kept for part in of if (kept := part.samples(row, metric)) is not None), None)


def together(paths: Sequence[Path], parts: Sequence[figures.Run], *, folder: Path) -> Together:
    """The newest row of each machine, case and metric; the ceilings of each machine, the exponents of each variant."""
    import pandas

    frames = sorted((store.read(path) for path in paths), key=lambda frame: str(frame["time_utc"].max()))
    frame = labelled(pandas.concat(frames, ignore_index=True))
    return Together(folder=folder, frame=frame, environment=common(parts), whole=frame, parts=tuple(parts))


def common(parts: Sequence[figures.Run]) -> dict[str, Any]:
    """What the environments of several runs say together, as far as figures read it."""
    known = [part.environment for part in parts]
    alike = len({document.get("machine") for document in known}) == 1  # then what the last one says holds for all
    return {
        **(known[-1] if alike else {}),
        "declared": {name: exponents for document in known for name, exponents in part(document, "declared").items()},
        "places": _places(known),
        "sessions": [{"run_id": document.get("run_id"), **one} for document in known for one in sessions_of(document)],
    }


def _places(known: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Each machine as one place, with the ceilings of its devices from all runs: dtypes that one lacks, another has."""
    places: dict[str, Any] = {}
    for document in known:
        for own in part(document, "places").values() or [document]:
            if not isinstance(own, dict):
                continue
            machine, ceilings = str(own.get("machine")), part(own, "ceilings")
            held = places.setdefault(machine, {"machine": machine, "ceilings": {}})["ceilings"]
            for device in ceilings:
                found = part(ceilings, device)
                rates = {**part(held.get(device), "matmul_tflops"), **part(found, "matmul_tflops")}
                held[device] = {**found, "matmul_tflops": rates}
    return places

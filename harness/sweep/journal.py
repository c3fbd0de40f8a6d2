"""environment.json of a run: what measured, where, when, how long, and how steady each machine was. No torch.

    journal = Journal(store, sweep, session, name="")     # the first place: a run on one device has no other
    journal.join("node 3f2c54", session)                  # another, which may be another machine
    journal.note(served)                                  # a case's seconds, the ceilings and canaries of its place
    rows = journal.rows(served)
    journal.close(wall_s)

A run over several places has two more keys: `machines` (the environment of each machine) and `places` (the machine,
device and ceilings of each place); `machine`, `environment` and `ceilings` are then those of the first.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from harness import stats
from harness.cases.catalogue import kinds
from harness.cases.space import Sweep
from harness.engines.watch import AGAIN, WAITING
from harness.measuring.requests import OVERHEAD
from harness.store.ceilings import sessions_of
from harness.store.record import SCHEMA, Reading, Row, new_run_id
from harness.store.runs import ENVIRONMENT, Store, machines_of, read_environment
from harness.sweep.crew import Served
from harness.sweep.disturbed import Beside, disturbance, told

CANARY_TOLERANCE = 0.05
NO_FIGURES = (*OVERHEAD, WAITING, AGAIN)  # seconds that no figure came from
CHECKS = ("numeric_error",)
BY_DTYPE = ("matmul_tflops", "matmul_size")  # of a device's ceilings


class Journal:
    """What a session of a sweep writes beside its rows."""

    def __init__(
        self, store: Store, sweep: Sweep, session: Mapping[str, Any], *, name: str = "", plugins: Mapping[str, str] = {}
    ) -> None:  # fmt: skip
        self.store = store
        earlier = read_environment(store.folder)
        self.run_id = earlier.get("run_id") or new_run_id()
        self.measuring_s, self._begun, self._first = 0.0, time.monotonic(), name
        declared = {name: entry["exponents"] for name, entry in session["catalogue"].items()}
        self.document: dict[str, Any] = {
            "schema": SCHEMA,
            "run_id": self.run_id,
            "machine": session["machine"],
            "commit": session["commit"],
            "device": session["device"],
            "order_seed": sweep.seed,
            "kinds": kinds(session["catalogue"]),
            "declared": {name: exponents for name, exponents in declared.items() if exponents},
            "environment": session["environment"],
            "ceilings": earlier.get("ceilings", {}) if earlier.get("machine") == session["machine"] else {},
            "sessions": sessions_of(earlier),
        }
        if plugins:
            self.document["plugins"] = dict(plugins)
        self.document |= {key: earlier[key] for key in ("machines", "places") if key in earlier}
        if machines := machines_of(earlier, session["machine"], session["environment"]):
            self.document["machines"] = machines
        self.places: dict[str, Mapping[str, Any]] = {}
        self._looks: dict[str, list[list[float]]] = {}
        self._cases: Counter[str] = Counter()
        self._beside: list[Beside] = []
        self.seconds: Counter[str] = Counter()  # of seconds, by what they went to
        self.log: dict[str, Any] = {"started_utc": f"{_now():%Y-%m-%dT%H:%M:%SZ}"}
        self._holders: dict[
            tuple[str, str], str
        ] = {}  # of a machine's device: the place whose ceilings stand in the log
        self.join(name, session)

    def join(self, name: str, session: Mapping[str, Any]) -> bool:
        """Take in a place. Whether its machine is unlike those that measured in this session before it."""
        machines = {known["machine"] for known in self.places.values()}
        self.places[name] = session
        self._looks[name] = []
        if name:
            self.document.setdefault("machines", {})[session["machine"]] = session["environment"]
            place = self.document.setdefault("places", {}).setdefault(name, {"ceilings": {}})
            place |= {"machine": session["machine"], "device": session["device"]}
        self.store.write_json(ENVIRONMENT, self.document)
        return bool(machines) and session["machine"] not in machines

    def examined(self, found: Iterable[tuple[str, str]]) -> list[str]:
        """Take in what is wrong at each place before its first case; a warning for each where something is."""
        started = time.monotonic()
        wrong = [(name, text) for name, text in found if text]
        spent = time.monotonic() - started
        self.seconds.update({"examining": spent})
        self.measuring_s += spent
        return [unfit(text, place=name) for name, text in wrong]

    def note(self, served: Served) -> list[str]:
        """Take in what a place did for a case and for itself; warnings."""
        visit = served.visit
        self._cases[served.name] += 1
        for seconds in (visit.seconds, visit.outcome.seconds):
            self.seconds.update(seconds)
            self.measuring_s += sum(spent for name, spent in seconds.items() if name not in NO_FIGURES)
        now = self._now()
        self._looks[served.name] += [[round(now - ago, 3), milliseconds] for ago, milliseconds in visit.canaries_ms]
        if visit.ceilings is not None:
            self._keep(served.name, visit.ceilings)
        if visit.verdict is not None:
            self._beside.append(
                Beside(place=served.name, case=served.resolution.case, verdict=visit.verdict, tries=visit.tries)
            )
        return [f"{served.name}: {text}" if served.name else text for text in visit.remarks]

    def look(self, looks: Iterable[tuple[str, float]]) -> None:
        """Take in one more canary (name, ms) of each place that measured something."""
        started = time.monotonic()
        for name, milliseconds in looks:
            if name in self._looks:
                self._looks[name].append([self._now(), milliseconds])
        spent = time.monotonic() - started
        self.seconds.update({"canary": spent})
        self.measuring_s += spent

    def rows(self, served: Served) -> list[Row]:
        """The rows of a case: the first figure's note tells the variant's remark and, of several places, the one."""
        session = self.places[served.name]
        remarks = [served.resolution.note, f"on {served.name}" if served.name else ""]
        rows = []
        for at, reading in enumerate(served.visit.outcome.readings):
            if at == 0:
                reading = _remarked(reading, remarks)
            rows.append(
                Row.of(
                    served.resolution.case, reading, run_id=self.run_id, machine=session["machine"],
                    commit=session["commit"], time_utc=f"{_now():%Y-%m-%dT%H:%M:%SZ}",
                )
            )  # fmt: skip
        return rows

    def summary(self) -> list[str]:
        """What the canaries say of the run as a whole, and last how many cases were disturbed and what to do."""
        return [*self._drifted(), *told(self._beside)]

    def _drifted(self) -> list[str]:
        """A warning for each place that ended more than CANARY_TOLERANCE from where it began."""
        return [
            f"{name or 'the machine'} drifted during this run: a fixed matrix product took {100 * moved:+.1f} % "
            "at the end against the start; repeat on a quiet machine (harness doctor tells why)"
            for name, moved in self._drifts().items()
            if abs(moved) > CANARY_TOLERANCE
        ]

    def close(self, wall_s: float) -> None:
        """Write how the session went."""
        drifts = self._drifts()
        self.log |= {
            **_canary(self._looks[self._first], drifts.get(self._first)),
            **disturbance(self._beside),
            "wall_s": wall_s,
            "measuring_s": self.measuring_s,
            "checking_s": sum(self.seconds[name] for name in CHECKS),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }
        if any(self.places):
            self.log["places"] = {
                name: {"cases": self._cases[name], **_canary(looks, drifts.get(name))}
                for name, looks in self._looks.items()
            }
        self._enter()
        for key in ("wall_s", "measuring_s"):
            self.document[key] = sum(entry.get(key, 0.0) for entry in self.document["sessions"])
        self.store.write_json(ENVIRONMENT, self.document)

    def _enter(self) -> None:
        """The session among the run's; from its first ceilings on, so that one that is killed keeps them, too."""
        if not any(entry is self.log for entry in self.document["sessions"]):
            self.document["sessions"].append(self.log)

    def _drifts(self) -> dict[str, float]:
        """How far each place's canary moved from the start to the end, as a share; where it was seen often enough."""
        return {
            name: stats.drift([value for _, value in looks]) for name, looks in self._looks.items() if len(looks) >= 3
        }

    def _now(self) -> float:
        """Seconds since the session began."""
        return round(time.monotonic() - self._begun, 3)

    def _keep(self, name: str, ceilings: Mapping[str, Any]) -> None:
        """The ceilings of a place, with the session; beside the sessions dtypes that an earlier one measured stay."""
        machine, device = self.places[name]["machine"], self.places[name]["device"]
        if self._holders.setdefault((machine, device), name) == name:
            self.log.setdefault("ceilings", {}).setdefault(machine, {})[device] = dict(ceilings)
            self._enter()
        places = [self.document["places"][name]] if name else []
        for holder in ([self.document] if name == self._first else []) + places:
            known = holder["ceilings"].get(device, {"matmul_tflops": {}})
            by_dtype = {
                key: {**known.get(key, {}), **ceilings.get(key, {})} for key in BY_DTYPE if key in known | ceilings
            }
            holder["ceilings"][device] = {**ceilings, **by_dtype}
        self.store.write_json(ENVIRONMENT, self.document)


def unfit(text: str, *, place: str = "") -> str:
    """The warning that a machine, or a place, is not fit to measure on, by what a doctor found wrong."""
    return f"{place or 'this machine'} is not fit to measure on now: {text}"


def _remarked(reading: Reading, remarks: list[str]) -> Reading:
    """The reading with remarks added to its note, none twice."""
    wanted = [remark for remark in remarks if remark and remark != reading.note]
    return replace(reading, note="; ".join(filter(None, [reading.note, *wanted]))) if wanted else reading


def _canary(looks: list[list[float]], moved: float | None) -> dict[str, Any]:
    return {"canary_ms": looks} | ({"canary_drift": moved} if moved is not None else {})


def _now() -> datetime:
    return datetime.now(UTC)

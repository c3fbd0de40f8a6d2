"""From the words of `harness recommend` to answers: which stored rows are meant; measuring what they lack. No torch.

asked = Asked.parse({"n": ["16k"], "phase": ["train"]})
answers = asked.answers(runs, wish, kinds=kinds)
folder = measure(given, runs, Path("results/new"), listener=listener)       # None where nothing was missing
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from harness import figures
from harness.answers.candidates import Stock
from harness.answers.recommend import Answer, Wish, recommend
from harness.cases.problems import asked_problems
from harness.cases.space import Sweep
from harness.engines.local import Engine
from harness.errors import NothingToCompare, UsageError, unknown
from harness.figures import Run
from harness.store import clock, problem
from harness.store import runs as store
from harness.store.record import parse_options
from harness.store.selection import Frame
from harness.sweep import conduct as sweep

METRICS = ("latency", "host", "peak_memory", "numeric_error", "approximation_error")
AXES = {"scope": "scope", "phase": "phase", "dtype": "dtype", "batch": "b", "heads": "h", "head_dim": "d"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A checked command line: the sweep that it describes, and which of its keys were given."""

    sweep: Sweep
    given: frozenset[str]

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Asked:
        """Raises UsageError for what is not valid, and unless there is exactly one n."""
        if "metrics" in given:
            raise UsageError("recommend chooses the metrics itself; leave --metrics out")
        if "n" not in given:
            raise UsageError("recommend needs the number of tokens: --n, such as --n 16k")
        wanted = Sweep.parse(given)
        if len(wanted.n) > 1:
            raise UsageError(f"recommend answers for one n at a time, not {', '.join(map(str, wanted.n))}")
        return cls(sweep=wanted, given=frozenset(given))

    def wish(
        self, *, budget_ms: float | None, max_error: float | None, max_memory: float | None, by: str = "latency"
    ) -> Wish:
        """The wish with its limits. Raises UsageError for one that is no sensible number."""
        for name, value, least in (("budget-ms", budget_ms, "more than 0"), ("max-memory", max_memory, "more than 0"),
                                   ("max-error", max_error, "0 or more")):  # fmt: skip
            if value is not None and not (
                math.isfinite(value) and (value > 0 or (value == 0 and least == "0 or more"))
            ):
                raise UsageError(f"--{name} takes a number, {least}, not {value:g}")
        return Wish(
            n=self.sweep.n[0], m=self.sweep.m if "m" in self.given else (), attention=self.sweep.attention,
            budget_ms=budget_ms, max_error=max_error, max_memory_mib=max_memory, by=clock.check(by),
        )  # fmt: skip

    def check_names(self, runs: Sequence[Run], catalogue: Mapping[str, Any]) -> None:
        """Raise UsageError for a name that neither the catalogue (harness.cases.catalogue) nor a stored row has."""
        held = {name: set(entry["backends"]) for name, entry in catalogue.items()}
        for run in runs:
            for variant, backend in set(zip(run.frame["attention"], run.frame["backend"], strict=True)):
                held.setdefault(variant, set()).add(backend)
        for name in self.sweep.attention:
            variant, colon, backend = name.partition(":")
            if variant not in held:
                raise UsageError(unknown("attention", variant, sorted(held)))
            if colon and backend not in (backends := sorted(filter(None, held[variant]))):
                raise UsageError(unknown(f"backend of {variant}", backend, backends))

    def answers(
        self, runs: Sequence[Run], wish: Wish, *, kinds: Mapping[str, str], machine: str | None = None
    ) -> list[Answer]:
        """An answer a machine and device. machine: only this one. Raises UsageError where an axis must be chosen."""
        runs = [run.by(wish.by) for run in runs]
        runs = [replace(run, frame=self._own(run.frame)) for run in runs]
        runs = [run for run in runs if len(run.frame)]
        if not runs:
            return []
        stock = Stock(runs, kinds=kinds)
        found = [setting for setting, _ in stock.settings() if machine in (None, setting["machine"])]
        chosen = self._choose(found)
        return recommend(stock, wish, keep=lambda setting: setting in chosen)

    def _own(self, frame: Frame) -> Frame:
        """The rows with the options and the seed that were asked for."""
        for key, several in self.sweep.set.items():
            variant, option = key.split(".")
            having = frame["options"].map(lambda text: parse_options(text).get(option))  # noqa: B023
            wanted = [*several, *(value.lower() for value in several if value.lower() in ("true", "false"))]
            frame = frame[(frame["attention"] != variant) | having.isin(wanted)]
        return frame[frame["seed"] == self.sweep.seed] if "seed" in self.given else frame

    def _choose(self, found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The settings that were asked for, one a machine and device: what was not said is the only one, or usual."""
        device = self.sweep.device
        if device != "auto":
            found = _kept(found, "device", [s["device"] for s in found if s["device"].partition(":")[0] == device
                                            or s["device"] == device], asked=device)  # fmt: skip
        for option, name in AXES.items():
            if option in self.given and getattr(self.sweep, option) != ("auto",):
                wanted = getattr(self.sweep, option)
                found = _kept(found, name, wanted, asked=", ".join(map(str, wanted)))
        if self._problem_given:
            asked = asked_problems(self.sweep)
            kept = [s for s in found if s["problem"] in {str(one.at(h=s["h"], n=self.sweep.n[0])) for one in asked}]
            if found and not kept:
                _none("problem", ", ".join(map(str, asked)), found)
            found = kept
        places = dict.fromkeys((setting["machine"], setting["device"]) for setting in found)
        return [setting for place in places for setting in self._one(place, found)]

    def _one(self, place: tuple[str, str], found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        own = [setting for setting in found if (setting["machine"], setting["device"]) == place]
        for option, name in AXES.items():
            held = list(dict.fromkeys(setting[name] for setting in own))
            if len(held) < 2 or option in self.given:
                continue
            usual = getattr(self.sweep, option)[0]
            if usual == "auto":
                usual = "float32" if place[1] == "cpu" else "bfloat16"
            if usual not in held:
                raise UsageError(
                    f"the stored rows of {place[0]} ({place[1]}) hold {name} = {', '.join(map(str, held))}: "
                    f"choose one with --{option.replace('_', '-')}"
                )
            own = [setting for setting in own if setting[name] == usual]
        held = list(dict.fromkeys(setting["problem"] for setting in own))
        if self._problem_given or len(held) < 2:
            return own
        if problem.DEFAULT not in held:
            raise UsageError(
                f"the stored rows of {place[0]} ({place[1]}) are of {', '.join(held)}: choose one with --causal, "
                "--kv-heads or --kv-tokens"
            )
        return [setting for setting in own if setting["problem"] == problem.DEFAULT]

    @property
    def _problem_given(self) -> bool:
        return not self.given.isdisjoint(problem.PROBLEM_KEYS)


def stored(folders: Sequence[Path], *, results: Path) -> tuple[list[Run], list[str]]:
    """The runs in these folders, or all under `results` where none is named; and why one there was left out."""
    if folders:
        return [figures.load(folder) for folder in dict.fromkeys(folders)], []
    runs, skipped = [], []
    for path in sorted(results.glob(f"*/{store.MEASUREMENTS}")):
        try:
            runs.append(figures.load(path.parent))
        except store.StoreError as error:
            skipped.append(f"left out: {error}")
    return runs, skipped


def measure(asked: Asked, runs: Sequence[Run], folder: Path, *, listener: sweep.Listener) -> tuple[Path | None, str]:
    """Measure what the runs lack of the asked cases on this machine: (its new folder or None, this machine's name)."""
    wanted = asked.sweep.model_copy(update={"metrics": METRICS})
    sweep.check_names(wanted)
    store.check_folder(folder, resume=False)
    with Engine(plugins=wanted.plugin, device=wanted.device) as engine:
        session, resolutions, _ = sweep.prepare(wanted, engine, trier=engine)
        known = {
            case for run in runs for case in run.frame.loc[run.frame["machine"] == session["machine"], "case_id"]
        }  # fmt: skip
        missing = [resolution.case for resolution in resolutions if resolution.case.case_id not in known]
        if not missing:
            return None, session["machine"]
        names = _names(wanted, missing)
        listener.warn(f"measuring {len(missing)} cases that no stored run holds, into {folder}")
        chosen = {name.partition(":")[0] for name in names}
        settings = {key: several for key, several in wanted.set.items() if key.partition(".")[0] in chosen}
        lacking = wanted.model_copy(update={"attention": names, "set": settings})
        sweep.run(lacking, folder, engine=engine, listener=listener)
    return folder, session["machine"]


def _names(wanted: Sweep, missing: Iterable[Any]) -> tuple[str, ...]:
    """The words of --attention that the missing cases come from."""
    asked = wanted.attention
    found = []
    for case in missing:
        both = (case.attention, f"{case.attention}:{case.backend}")
        found.append(next((name for name in asked if name in both), case.attention))
    return tuple(dict.fromkeys(found))


def _kept(
    found: Sequence[Mapping[str, Any]], name: str, wanted: Sequence[Any], *, asked: str
) -> list[Mapping[str, Any]]:
    kept = [setting for setting in found if setting[name] in wanted]
    if found and not kept:
        _none(name, asked, found)
    return kept


def _none(name: str, asked: str, found: Sequence[Mapping[str, Any]]) -> NoReturn:
    held = ", ".join(dict.fromkeys(str(setting[name]) for setting in found))
    raise NothingToCompare(f"no stored row has {name} {asked}; stored: {held}; add --measure")

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
from harness.answers.candidates import Stock, known_kinds
from harness.answers.known import NO_DEFAULTS, Known
from harness.answers.limits import Wish, check_task
from harness.answers.recommend import Answer, measured, recommend
from harness.cases.problems import asked_problems
from harness.cases.space import Sweep
from harness.engines.local import Engine
from harness.errors import NothingToCompare, UsageError, unknown
from harness.figures import Run
from harness.store import clock, problem
from harness.store import runs as store
from harness.store.record import alike, parse_options
from harness.store.selection import Frame
from harness.sweep import conduct as sweep
from harness.vision.models import architecture

MODEL = "model"
METRICS = ("latency", "host", "peak_memory", "numeric_error", "approximation_error")
AXES = {"scope": "scope", "phase": "phase", "dtype": "dtype", "batch": "b", "heads": "h", "head_dim": "d"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A checked command line: the sweep that it describes, and which of its keys were given."""

    sweep: Sweep
    given: frozenset[str]

    @classmethod
    def parse(cls, given: Mapping[str, Any], *, every_n: bool = False) -> Asked:
        """Raises UsageError for what is not valid, and unless there is exactly one n; every_n: there may be none.

        A whole model has the n of its images: model and resolution say it, or n for the stored rows of other models.
        """
        if "metrics" in given:
            raise UsageError("recommend chooses the metrics itself; leave --metrics out")
        wanted = Sweep.parse(given)
        asked = cls(sweep=wanted, given=frozenset(given))
        if "n" not in given and not every_n and not asked.of_model:
            raise UsageError("recommend needs the number of tokens: --n, such as --n 16k")
        for name in ("n", "model", "resolution") if asked.of_model else ("n",):
            several = getattr(wanted, name)
            if len(several) > 1:
                raise UsageError(f"recommend answers for one {name} at a time, not {', '.join(map(str, several))}")
        return asked

    @property
    def of_model(self) -> bool:
        """Whether whole models are meant and nothing else."""
        return self.sweep.scope == (MODEL,)

    @property
    def n(self) -> int:
        """The number of tokens asked for; of a model those of its images."""
        if self.of_model and "n" not in self.given:
            return architecture(self.sweep.model[0]).tokens(self.sweep.resolution[0])
        return self.sweep.n[0]

    def wish(
        self, *, budget_ms: float | None, max_error: float | None, max_memory: float | None, task: str | None = None,
        min_accuracy: float | None = None, max_task_error: float | None = None, by: str = "latency",
    ) -> Wish:  # fmt: skip
        """The wish with its limits. Raises UsageError for one that is no sensible number."""
        for name, value, least in (
            ("budget-ms", budget_ms, "more than 0"), ("max-memory", max_memory, "more than 0"),
            ("max-task-error", max_task_error, "more than 0"), ("max-error", max_error, "0 or more"),
        ):  # fmt: skip
            if value is not None and not (
                math.isfinite(value) and (value > 0 or (value == 0 and least == "0 or more"))
            ):
                raise UsageError(f"--{name} takes a number, {least}, not {value:g}")
        limits = {"--min-accuracy": min_accuracy, "--max-task-error": max_task_error}
        named = [name for name, limit in limits.items() if limit is not None]
        if len(named) > 1:
            raise UsageError(
                "a task is told by an accuracy or by an error: --min-accuracy or --max-task-error, not both"
            )
        if (task is None) != (not named):
            told, lacking = (named[0], "--task") if task is None else ("--task", "--min-accuracy or --max-task-error")
            raise UsageError(
                f"{told} needs {lacking}, as in --task recall --min-accuracy 0.95 or --task darcy --max-task-error 0.1"
            )
        if min_accuracy is not None and not 0 < min_accuracy <= 1:
            raise UsageError(f"--min-accuracy takes a share, more than 0 and at most 1, not {min_accuracy:g}")
        return Wish(
            n=self.n, m=self.sweep.m if "m" in self.given else (), attention=self.sweep.attention,
            budget_ms=budget_ms, max_error=max_error, max_memory_mib=max_memory, task=task or "",
            min_accuracy=min_accuracy, max_task_error=max_task_error, by=clock.check(by),
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
        self, runs: Sequence[Run], wish: Wish, *, kinds: Mapping[str, str],
        defaults: Mapping[str, Mapping[str, str]] = NO_DEFAULTS, machine: str | None = None,
    ) -> list[Answer]:  # fmt: skip
        """An answer a machine and device, and a model. machine: only this one; defaults: of options, as text.

        Raises UsageError where an axis must be chosen, and for a task that nothing is known of.
        """
        known = Known.of(runs, kinds=known_kinds(runs, kinds), defaults=defaults)
        check_task(wish, known)
        stock = self.stock(runs, by=wish.by, kinds=kinds, defaults=defaults)
        if stock is None:
            return []
        found = [(s, measured(lines)) for s, lines in stock.settings() if machine in (None, s["machine"])]
        having = [setting for setting, sizes in found if wish.n in sizes]
        chosen = self._choose(having if self.of_model and having else [setting for setting, _ in found])
        answers = []
        for setting in chosen:
            own = replace(wish, n=self._n_of(setting, next(sizes for s, sizes in found if s == setting)))
            answers += recommend(stock, own, keep=lambda other: other == setting, known=known)  # noqa: B023
        return answers

    def _n_of(self, setting: Mapping[str, Any], sizes: Sequence[int]) -> int:
        """The n asked for; of a trained model of which nothing was said that of its rows.

        Raises UsageError where those have several.
        """
        if not self.of_model or self.given & {"n", "model", "resolution"}:
            return self.n
        if setting["scope"] == f"{MODEL} {self.sweep.model[0]}" or not sizes:
            return self.n
        if len(sizes) > 1:
            raise UsageError(
                f"the rows of {setting['scope']} hold n = {', '.join(map(str, sizes))}: choose one with --n"
            )
        return sizes[0]

    def stock(
        self, runs: Sequence[Run], *, by: str, kinds: Mapping[str, str],
        defaults: Mapping[str, Mapping[str, str]] = NO_DEFAULTS,
    ) -> Stock | None:  # fmt: skip
        """The rows that are meant, their times by a clock; None where there are none."""
        runs = [run.by(by) for run in runs]
        runs = [replace(run, frame=self._own(run.frame, defaults)) for run in runs]
        runs = [run for run in runs if len(run.frame)]
        return Stock(runs, kinds=kinds) if runs else None

    def means(self, setting: Mapping[str, Any]) -> bool:
        """Whether every axis that was given, n aside, lets a setting in."""
        given = [(name, getattr(self.sweep, option)) for option, name in AXES.items() if option in self.given]
        device = self.sweep.device in ("auto", setting["device"], setting["device"].partition(":")[0])
        return device and all(wanted == ("auto",) or setting[name] in wanted for name, wanted in given)

    def _own(self, frame: Frame, defaults: Mapping[str, Mapping[str, str]]) -> Frame:
        """The rows with the options and the seed that were asked for; an option that a row lacks is at its default."""
        for key, several in self.sweep.set.items():
            variant, option = key.split(".")
            usual = defaults.get(variant, {}).get(option)
            having = {text: parse_options(text).get(option, usual) for text in frame["options"].unique()}
            meant = [
                text for text, one in having.items() if one is not None and any(alike(one, each) for each in several)
            ]
            frame = frame[(frame["attention"] != variant) | frame["options"].isin(meant)]
        return frame[frame["seed"] == self.sweep.seed] if "seed" in self.given else frame

    def _choose(self, found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The settings that were asked for, one a machine and device: what was not said is the only one, or usual."""
        device = self.sweep.device
        if device != "auto":
            found = _kept(found, "device", [s["device"] for s in found if s["device"].partition(":")[0] == device
                                            or s["device"] == device], asked=device)  # fmt: skip
        for option, name in AXES.items():
            if option in self.given and getattr(self.sweep, option) != ("auto",):
                wanted = self._scopes(found) if option == "scope" else getattr(self.sweep, option)
                found = _kept(found, name, wanted, asked=", ".join(map(str, wanted)))
        if self._problem_given:
            asked = asked_problems(self.sweep)
            kept = [s for s in found if s["problem"] in {str(one.at(h=s["h"], n=self.sweep.n[0])) for one in asked}]
            if found and not kept:
                _none("problem", ", ".join(map(str, asked)), found)
            found = kept
        places = dict.fromkeys((setting["machine"], setting["device"]) for setting in found)
        return [setting for place in places for setting in self._one(place, found)]

    def _scopes(self, found: Sequence[Mapping[str, Any]]) -> list[str]:
        """The scopes asked for as stored rows are told with them (harness.store.selection): `model` with a name behind.

        The model that was named; without a name the usual one, where n is that of its images, and else all there are.
        """
        wanted = [name for name in self.sweep.scope if name != MODEL]
        if MODEL not in self.sweep.scope:
            return wanted
        stored = dict.fromkeys(setting["scope"] for setting in found if setting["scope"].partition(" ")[0] == MODEL)
        named = f"{MODEL} {self.sweep.model[0]}"
        sure = "model" in self.given or ("n" not in self.given and named in stored)
        return [*wanted, *([named] if sure or not stored else stored)]

    def _one(self, place: tuple[str, str], found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        own = [setting for setting in found if (setting["machine"], setting["device"]) == place]
        for option, name in AXES.items():
            if self.of_model and option in ("scope", "heads", "head_dim"):
                continue  # a model decides them, and each model has an answer of its own
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

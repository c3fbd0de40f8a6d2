"""What attentions are known to keep: accuracies of trained models, by variant, m and options. No torch.

    known = Known.of(runs, kinds=kinds, defaults={"anchor": {"init": "sharp"}})  # the runs' own and the shipped table
    for one in known.of_candidate(candidate): print(known.told(one))    # "recall (…): top1 0.987 (0.984 to 0.991 …"

The shipped table, known.csv, is made of this project's studies by scripts/known_accuracies.py, which a test repeats.
A model's accuracy is that of its size and task: beside each stands the same model with attention removed, and exact.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from harness.answers.candidates import Candidate
from harness.figures import Run
from harness.store.record import LESS_IS_BETTER, parse_options, stated
from harness.store.selection import WEIGHTS, Frame
from harness.store.trained_for import own_options, problems

SHIPPED = Path(__file__).with_name("known.csv")
JUDGED = ("top1", "top5", "map", "map50", "map75", "miou", "relative_l2")
PRIMARY = ("top1", "map", "miou", "relative_l2")  # one a task
NO_DEFAULTS: Mapping[str, Mapping[str, str]] = {}


@dataclass(frozen=True, kw_only=True)
class Reached:
    """What the models of one attention, m and options reached on one problem, over their seeds.

    task: recall, digits, …; problem: the settings that tell problems of a task apart; n: the models' tokens; mean,
    lowest, highest: over the seeds; source: the run that holds the rows.
    """

    task: str
    problem: str
    metric: str
    attention: str
    m: int | None
    options: str
    n: int
    seeds: int
    mean: float
    lowest: float
    highest: float
    source: str

    @property
    def place(self) -> tuple[Any, ...]:
        """What two must share to be compared."""
        return self.task, self.problem, self.metric, self.n, self.source

    @property
    def is_error(self) -> bool:
        """Whether less is better."""
        return self.metric in LESS_IS_BETTER

    @property
    def worst(self) -> float:
        """That of the worst seed."""
        return self.highest if self.is_error else self.lowest

    @property
    def where(self) -> str:
        """`recall (items=56 shapes=96 steps=500, n=64)`."""
        return f"{self.task} ({', '.join(filter(None, [self.problem, f'n={self.n}']))})"


COLUMNS = tuple(field.name for field in fields(Reached))


@dataclass(frozen=True, kw_only=True)
class Known:
    """All that is known of accuracies. kinds: exact, floor and the rest; defaults: of each variant's options, as text,
    so that an option named and the same one left out are one thing."""

    reached: tuple[Reached, ...] = ()
    kinds: Mapping[str, str]
    defaults: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(
        cls, runs: Sequence[Run], *, kinds: Mapping[str, str], defaults: Mapping[str, Mapping[str, str]] = NO_DEFAULTS
    ) -> Known:  # fmt: skip
        """The runs' own accuracies first, then the shipped ones; a study that is shipped is told by its name there."""
        told = {_figures(one) for one in shipped()}
        own = [one for run in runs for one in of_frame(run.frame, source=str(run.folder), defaults=defaults)]
        own = [one for one in own if _figures(one) not in told]
        return cls(reached=(*own, *shipped()), kinds=kinds, defaults=defaults)

    @property
    def tasks(self) -> list[str]:
        """The tasks of which anything is known."""
        return list(dict.fromkeys(one.task for one in self.reached))

    def of_candidate(self, one: Candidate) -> list[Reached]:
        """What is known of a candidate: the same variant, m and options; of an exact one whatever any exact one did."""
        if one.exact:
            places = dict.fromkeys(each.place for each in self.reached)
            return [found for place in places if (found := self._exact(place)) is not None]
        own = self.options_of(one)
        return [each for each in self.reached if (each.attention, each.m, each.options) == (one.attention, one.m, own)]

    def elsewhere(self, one: Candidate) -> list[Reached]:
        """What is known of its variant and options at other m."""
        own = self.options_of(one)
        found = [each for each in self.reached if (each.attention, each.options) == (one.attention, own)]
        return [each for each in found if each.m != one.m]

    def options_of(self, one: Candidate) -> str:
        """The options of a candidate that differ from their defaults."""
        return _stated(own_options(parse_options(one.options)), self.defaults.get(one.attention, {}))

    def told(self, one: Reached) -> str:
        """`recall (…): top1 0.987 (0.984 to 0.991 over 3 seeds), attention removed 0.181, exact 1.000; results/…`."""
        seeds = f"{one.lowest:.3f} to {one.highest:.3f} over {one.seeds} seeds" if one.seeds > 1 else "one seed"
        beside = [(name, self._pooled(one.place, kind)) for name, kind in (("attention removed", "floor"),
                                                                           ("exact", "exact"))]  # fmt: skip
        rest = "".join(f", {name} {each.mean:.3f}" for name, each in beside if each is not None)
        rest = rest or ", and no floor was measured"
        return f"{one.where}: {one.metric} {one.mean:.3f} ({seeds}){rest}; {one.source}"

    def as_data(self, one: Reached) -> dict[str, Any]:
        """The same as data: its fields, and the means with attention removed and of exact attention."""
        beside = {name: self._pooled(one.place, name) for name in ("floor", "exact")}
        means = {f"{name}_mean": None if each is None else each.mean for name, each in beside.items()}
        return {name: getattr(one, name) for name in COLUMNS} | means

    def _exact(self, place: tuple[Any, ...]) -> Reached | None:
        return self._pooled(place, "exact")

    def _pooled(self, place: tuple[Any, ...], kind: str) -> Reached | None:
        """All seeds of the variants of a kind on one problem as one; None where there are none."""
        own = [each for each in self.reached if each.place == place and self.kinds.get(each.attention) == kind]
        if not own:
            return None
        seeds = sum(each.seeds for each in own)
        return replace(
            own[0], seeds=seeds, mean=sum(each.mean * each.seeds for each in own) / seeds,
            lowest=min(each.lowest for each in own), highest=max(each.highest for each in own),
        )  # fmt: skip


def groups(
    frame: Frame, *, defaults: Mapping[str, Mapping[str, str]] = NO_DEFAULTS, beside: Sequence[str] = ()
) -> Iterator[tuple[dict[str, Any], Frame]]:
    """The rows of trained models by metric, problem, attention, own options and m, each seed's latest, by seed.

    defaults: an option named and the same left out are one. beside: options of other rows, from whose problems these
    are told apart too.
    """
    frame = frame[frame["metric"].isin(JUDGED) & (frame["status"] == "ok") & frame["scope"].str.startswith("model")]
    if frame.empty:
        return
    distinct = list(frame["options"].unique())
    parsed = [parse_options(options) for options in distinct]
    owned = dict(zip(distinct, map(own_options, parsed), strict=True))
    apart = problems([*parsed, *map(parse_options, beside)])[: len(parsed)]
    frame = frame.assign(
        problem=frame["options"].map(dict(zip(distinct, apart, strict=True))),
        own=[
            f" {_stated(own, defaults[attention])}".rstrip() if attention in defaults else own
            for attention, own in zip(frame["attention"], frame["options"].map(owned), strict=True)
        ],
        weights=frame["options"].map(dict(zip(distinct, [each.get(WEIGHTS, "") for each in parsed], strict=True))),
        size=frame["m"].fillna(-1),
    )
    keys = ["metric", "problem", "attention", "own", "size"]
    for key, rows in frame.groupby(keys, sort=False):
        told = dict(zip(keys, key, strict=True))
        size = told.pop("size")
        rows = rows.drop_duplicates(["seed", "weights"], keep="last").sort_values("seed")
        yield {**told, "m": None if size < 0 else int(size)}, rows


def of_frame(
    frame: Frame, *, source: str, task: str = "", defaults: Mapping[str, Mapping[str, str]] = NO_DEFAULTS,
    beside: Sequence[str] = (),
) -> list[Reached]:  # fmt: skip
    """What the trained models of a run reached. task: what to call their task; the rows' own words without one;
    beside: options of other rows, from whose problems these are told apart too."""
    found = []
    for key, rows in groups(frame, defaults=defaults, beside=beside):
        if key["metric"] not in PRIMARY:
            continue
        words = key["problem"].split(" ")
        settings = [word for word in words if "=" in word]
        values = [float(value) for value in rows["value"]]
        found.append(
            Reached(
                task=task or " ".join(word for word in words if "=" not in word), problem=" ".join(settings),
                metric=key["metric"], attention=key["attention"],
                m=None if key["attention"] == "none" else key["m"],  # a control has none, whatever its row says
                options=key["own"].strip(), n=int(rows["n"].iloc[0]),
                seeds=len(values), mean=sum(values) / len(values), lowest=min(values), highest=max(values),
                source=source,
            )
        )  # fmt: skip
    return found


def _stated(own: str, defaults: Mapping[str, str]) -> str:
    """Options as trained_for.own_options tells them, without those at their defaults."""
    pairs = (pair.partition("=") for pair in own.split())
    return " ".join(f"{key}={value}" for key, value in stated({k: v for k, _, v in pairs}, defaults).items())


@cache
def shipped() -> tuple[Reached, ...]:
    """The table that comes with the package."""
    with SHIPPED.open(encoding="utf-8", newline="") as file:
        return tuple(
            Reached(
                task=row["task"], problem=row["problem"], metric=row["metric"], attention=row["attention"],
                m=int(row["m"]) if row["m"] else None, options=row["options"], n=int(row["n"]),
                seeds=int(row["seeds"]), mean=float(row["mean"]), lowest=float(row["lowest"]),
                highest=float(row["highest"]), source=row["source"],
            )
            for row in csv.DictReader(file)
        )  # fmt: skip


def _figures(one: Reached) -> tuple[Any, ...]:
    """What two tables have in common where they tell of the same models; the shipped one has six digits of a mean."""
    return one.metric, one.attention, one.m, one.options, one.n, one.seeds, f"{one.mean:.6g}"

"""What stored rows say, and what to measure for it: `harness.compare`, `crossover`, `recommend`, as the commands do.

print(harness.recommend(run, n=4096, max_error=0.5))      # prints as its command does; as_json() is its --json
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from harness import figures
from harness.answers import compare as comparing
from harness.answers import measure_candidates, measure_crossover
from harness.answers import recommend as recommending
from harness.answers.crossover import Crossover
from harness.answers.terminal import as_text
from harness.cases import catalogue
from harness.door.bar import listening
from harness.door.defined import named
from harness.door.measure import Keys, fresh, over_file, split
from harness.door.stored import Run, read
from harness.errors import NothingToCompare, UsageError
from harness.store.contention import banner
from harness.store.table import folded
from harness.sweep.conduct import Listener

if TYPE_CHECKING:
    from pandas import DataFrame

UNTOLD = ("missing", "not comparable")
RESULTS = Path("results")
Stored = Run | str | Path


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two stored runs case by case: ratios are b over a."""

    a: Path
    b: Path
    lines: tuple[comparing.Line, ...]

    @property
    def comparable(self) -> bool:
        """Whether any line could be compared."""
        return any(line.verdict not in UNTOLD for line in self.lines)

    @property
    def frame(self) -> DataFrame:
        """The lines as a table of data."""
        import pandas

        return pandas.DataFrame([asdict(line) for line in self.lines])

    def as_json(self) -> dict[str, Any]:
        """As `harness compare --json` prints it."""
        return {"a": str(self.a), "b": str(self.b), "lines": [asdict(line) for line in self.lines]}

    def __repr__(self) -> str:
        told = [line for line in self.lines if line.verdict not in UNTOLD]
        doubted = sum(bool(line.contended) for line in told)
        texts = [folded(banner(doubted, len(told), "comparison"), 2)] if doubted else []
        for line in told:
            ratio = "" if line.ratio is None else f"  ×{line.ratio:.3f}"
            interval = "" if line.low is None else f" ({line.low:.3f} to {line.high:.3f})"
            values = f"{line.a:.4g} → {line.b:.4g} {line.unit}"
            doubt = "  contended" if line.contended else ""
            text = f"{line.verdict:<14} {line.case}  {line.metric} {values}{ratio}{interval}{doubt}"
            texts.append(folded(text, 15))
        counted = Counter(line.verdict for line in self.lines)
        texts += [*([""] if told else []), ", ".join(f"{count} {verdict}" for verdict, count in counted.most_common())]
        texts += [folded(text, 2) for text in _rest(self.lines)]
        told.sort(key=_inconclusive)
        for reason in dict.fromkeys(line.reason for line in told):
            wide = all(_inconclusive(line) for line in told if line.reason == reason)
            texts.append(folded(f"inconclusive: {reason}" if wide else reason, 2))
        return "\n".join(texts)


@dataclass(frozen=True, repr=False)
class Crossing:
    """From which n a beats b on a device: `answer` holds kind, n, what encloses it and every probe."""

    a: str
    b: str
    device: str
    answer: Crossover

    @property
    def n(self) -> int | None:
        """The n from which a is ahead, or None where there is no such n."""
        return self.answer.n

    @property
    def sentence(self) -> str:
        """The answer in words."""
        return self.answer.sentence(self.a, self.b)

    def as_json(self) -> dict[str, Any]:
        """As `harness crossover --json` prints it."""
        document = {"a": self.a, "b": self.b, "device": self.device, "answer": self.sentence, **asdict(self.answer)}
        for probe in document["probes"]:
            probe.update({k: None for k in ("ratio", "low", "high") if probe[k] in (0.0, float("inf"))})
        return document

    def __repr__(self) -> str:
        doubted = self.answer.contended or self.answer.kind == "refused"
        texts = [self.sentence, ""] if doubted else []  # first, since it says how far the rest can be trusted
        for probe in self.answer.probes:
            times = f"{probe.a_ms:10.4g} ms {probe.b_ms:10.4g} ms" if probe.a_ms and probe.b_ms else f"  {probe.note}"
            interval = f"{probe.ratio:8.3f} ({probe.low:.3f} to {probe.high:.3f})" if probe.a_ms else ""
            beside = " contended" if probe.contended else ""
            texts.append(f"n={probe.n:<8} {times} {interval}  {probe.winner}{beside}")
        a, b = self.a, self.b
        return "\n".join(
            [*texts, "", f"{self.sentence} on {self.device}; times of {a} and {b}, their ratio and who wins above"]
        )


@dataclass(frozen=True, repr=False)
class Recommendation:
    """An answer for each machine and device. measured: the folder of what was measured for it, where it was."""

    n: int
    answers: tuple[recommending.Answer, ...]
    folders: tuple[Path, ...]
    measured: Path | None

    @property
    def choice(self) -> recommending.Candidate | None:
        """What to take, or None where nothing meets the limits. Raises UsageError where machines or devices differ."""
        if len(self.answers) != 1:
            told = ", ".join(f"{one.setting['machine']} ({one.setting['device']})" for one in self.answers)
            raise UsageError(f"there is an answer for each of {told}: take one of .answers")
        return self.answers[0].choice

    def as_json(self) -> dict[str, Any]:
        """As `harness recommend --json` prints it."""
        return {
            "n": self.n, "runs": [str(folder) for folder in self.folders],
            "measured": str(self.measured) if self.measured else None,
            "answers": [recommending.as_json(answer) for answer in self.answers],
        }  # fmt: skip

    def __repr__(self) -> str:
        return "\n".join(map(as_text, self.answers)).rstrip("\n")


class Limits(TypedDict, total=False):
    """What a choice must keep to: milliseconds a call, approximation error, MiB above the inputs; by whose time."""

    budget_ms: float | None
    max_error: float | None
    max_memory: float | None
    by: str


def compare(a: Stored, b: Stored, *, metrics: str | Sequence[str] = "latency") -> Comparison:
    """Two stored runs: the ratio b/a of each case with its interval, and what it does not show.

    A side may be several runs, or a folder that holds runs: then the newest figure of each case and machine counts.
    Raises UsageError for an unknown metric, NothingToCompare when the runs share no case.
    """
    texts = [metrics] if isinstance(metrics, str) else metrics
    names = tuple(name.strip() for text in texts for name in text.split(",") if name.strip())
    (first, sides_a), (second, sides_b) = _side(a), _side(b)
    return Comparison(first, second, tuple(comparing.compare(sides_a, sides_b, metrics=names)))


def crossover(
    a: Any, b: Any, *, low: int | str = 128, high: int | str = "64k", config: str | Path | None = None,
    progress: bool = True, **keys: Unpack[Keys],
) -> Crossing:  # fmt: skip
    """From which n does a beat b here? Doubling, then bisection, measured in turns in a worker process.

    a, b: variants as in `attention` of harness.run, functions of the caller's included; keys: one size of a sweep each.
    Raises UsageError and Failure.
    """
    with tempfile.TemporaryDirectory(prefix="attention-harness-") as folder:
        given, names = over_file(Path(config) if config else None, keys), []
        for variant in map(named, (a, b)):
            names.append(variant if isinstance(variant, str) else variant.name)
            if not isinstance(variant, str):
                variant.write(Path(folder))
                known = given.get("plugin", [])
                given["plugin"] = [*([known] if isinstance(known, str) else known), str(variant.path(Path(folder)))]
        answer, device = measure_crossover.measure(
            given, *names, low=str(low), high=str(high), say=_say if progress else _nothing
        )  # fmt: skip
    return Crossing(a=names[0], b=names[1], device=device, answer=answer)


def recommend(
    runs: Stored | Iterable[Stored] = (), *, budget_ms: float | None = None, max_error: float | None = None,
    max_memory: float | None = None, by: str = "latency", measure: bool | None = None, out: str | Path | None = None,
    config: str | Path | None = None, progress: bool = True, **keys: Unpack[Keys],
) -> Recommendation:  # fmt: skip
    """Which attention to take for n tokens within limits, from stored runs: the choice, the runner-up, the doubts.

    runs: Runs or folders; all under results/ where none is named. n must be given. budget_ms: of a call, its interval
    included; max_error: of the approximation error; max_memory: MiB above the inputs; by: whose time, latency (the
    device's), host, or eager (the longer). measure: measure here what is
    missing, into `out` (results/<time>); by default only where no run is named and nothing stored answers.
    Raises UsageError, NothingToCompare where there are no such rows.
    """
    given, _ = split(over_file(Path(config) if config else None, keys))
    several = [runs] if isinstance(runs, Run | str | Path) else list(runs)
    limits = Limits(budget_ms=budget_ms, max_error=max_error, max_memory=max_memory, by=by)
    with listening(progress=progress, at_once=False) as listener:
        return answered(given, several, limits, measure=measure, out=Path(out) if out else None, listener=listener)


def answered(
    given: Mapping[str, Any], runs: Sequence[Stored], limits: Limits, *, measure: bool | None,
    out: Path | None, listener: Listener,
) -> Recommendation:  # fmt: skip
    """What `recommend` returns, its progress told to a listener. given: keys of the sweep; see `recommend`."""
    asked = measure_candidates.Asked.parse(given)
    wish = asked.wish(**{"budget_ms": None, "max_error": None, "max_memory": None, **limits})
    stored, skipped = _stored(runs)
    for text in skipped:
        listener.warn(text)
    known = catalogue.cached(asked.sweep.plugin) or {"attentions": {}}
    asked.check_names(stored, known["attentions"])
    kinds = catalogue.kinds(known["attentions"])
    try:
        answers = asked.answers(stored, wish, kinds=kinds) if not measure else []
    except NothingToCompare:
        if measure is False or runs:
            raise
        answers = []
    answerable = any(answer.ranking or answer.refused for answer in answers)
    folder = None
    if measure or (measure is None and not runs and not answerable):
        folder, machine = measure_candidates.measure(asked, stored, out or fresh(RESULTS), listener=listener)
        stored += [figures.load(folder)] if folder else []
        answers = asked.answers(stored, wish, kinds=kinds, machine=machine)
    if not answers:
        raise NothingToCompare(f"no stored run holds such rows; measure them: harness recommend --n {wish.n} --measure")
    folders = tuple(run.folder for run in stored)
    return Recommendation(n=wish.n, answers=tuple(answers), folders=folders, measured=folder)


def _stored(runs: Sequence[Stored]) -> tuple[list[figures.Run], list[str]]:
    if not runs:
        return measure_candidates.stored([], results=RESULTS)
    found = [run if isinstance(run, Run) else read(run) for run in runs]
    parts = {part.folder: part for run in found for part in run.parts}
    return [*parts.values()], []


def _side(one: Stored) -> tuple[Path, list[Path]]:
    """What a side is called, and its runs."""
    run = one if isinstance(one, Run) else read(one)
    return (run.paths[0] if len(run.paths) == 1 else run.folder), [*run.paths]


def _rest(lines: Iterable[comparing.Line]) -> list[str]:
    """`12 missing: run B lacks this case or metric; such as flash:torch n=1024 …` a reason, the most common first."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if line.verdict in UNTOLD:
            found.setdefault((line.verdict, line.reason), []).append(line.case)
    return [
        f"{len(cases)} {verdict}: {reason}; {'such as ' if len(cases) > 1 else ''}{cases[0]}"
        for (verdict, reason), cases in sorted(found.items(), key=lambda item: -len(item[1]))
    ]


def _inconclusive(line: comparing.Line) -> bool:
    return line.verdict == "inconclusive"


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _nothing(text: str) -> None:
    pass

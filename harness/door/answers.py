"""What two runs or two variants say of each other: `harness.compare` and `crossover`, as the commands do.

print(harness.crossover("anchor", "flash"))      # prints as its command does; as_json() is its --json
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from harness.answers import compare as comparing
from harness.answers import measure_crossover
from harness.answers.crossover import Crossover
from harness.cases.problems import asked_problems
from harness.cases.space import Sweep
from harness.door.choosing import Only, kept
from harness.door.defined import named
from harness.door.measure import Keys, over_file
from harness.door.stored import Run, read
from harness.store.contention import banner
from harness.store.problem import DEFAULT, PROBLEM_KEYS
from harness.store.table import folded

if TYPE_CHECKING:
    from pandas import DataFrame

UNTOLD = ("missing", "not comparable")
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
    problem: str = DEFAULT

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
        told = {"a": self.a, "b": self.b, "device": self.device, "problem": self.problem, "answer": self.sentence}
        document = {**told, **asdict(self.answer)}
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
        where = self.device + ("" if self.problem == DEFAULT else f", {self.problem}")
        return "\n".join(
            [*texts, "", f"{self.sentence} on {where}; times of {a} and {b}, their ratio and who wins above"]
        )


def compare(
    a: Stored, b: Stored, *, metrics: str | Sequence[str] = "latency", **which: Unpack[Only]
) -> Comparison:  # fmt: skip
    """Two stored runs: the ratio b/a of each case with its interval, and what it does not show.

    which: the rows meant, as in Run.table. A side may be several runs, or a folder that holds runs: then the newest
    figure of each case and machine counts. Raises UsageError for an unknown metric and for what neither side holds,
    NothingToCompare when the runs share no case.
    """
    texts = [metrics] if isinstance(metrics, str) else metrics
    names = tuple(name.strip() for text in texts for name in text.split(",") if name.strip())
    (first, sides_a), (second, sides_b) = _side(a), _side(b)
    lines = comparing.compare(sides_a, sides_b, metrics=names, keep=lambda frame: kept(frame, which))
    return Comparison(first, second, tuple(lines))


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
    sweep = Sweep.parse({key: value for key, value in given.items() if key in (*PROBLEM_KEYS, "heads")})
    problem = str(asked_problems(sweep)[0].at(h=sweep.heads[0], n=0))
    return Crossing(a=names[0], b=names[1], device=device, answer=answer, problem=problem)


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

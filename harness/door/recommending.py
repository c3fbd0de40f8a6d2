"""Which attention to take: `harness.recommend`, as its command does it; and the sentence that a run ends with.

print(harness.recommend(run, n=4096, max_error=0.5))      # prints as its command does; as_json() is its --json
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

from harness import figures
from harness.answers import measure_candidates, policy
from harness.answers import recommend as recommending
from harness.answers.closing import closing as closing_of
from harness.answers.document import as_json
from harness.answers.terminal import as_text
from harness.cases import catalogue
from harness.door.bar import listening
from harness.door.measure import Keys, fresh, over_file, split
from harness.door.stored import Run, read
from harness.errors import NothingToCompare, UsageError
from harness.store.selection import printable
from harness.store.table import folded
from harness.sweep.conduct import Listener

RESULTS = Path("results")
Stored = Run | str | Path


@dataclass(frozen=True, repr=False)
class Recommendation:
    """An answer for each machine and device. measured: the folder of what was measured for it, where it was.

    n: None where only a policy was asked for, or models of several n; policy: what was written, where it was asked for.
    """

    n: int | None
    answers: tuple[recommending.Answer, ...]
    folders: tuple[Path, ...]
    measured: Path | None
    policy: policy.Written | None = None

    @property
    def choice(self) -> recommending.Candidate | None:
        """What to take, or None where nothing meets the limits. Raises UsageError where machines or devices differ."""
        if not self.answers:
            raise UsageError("only a policy was written, no n was asked for: give n=")
        if len(self.answers) != 1:
            told = ", ".join(f"{one.setting['machine']} ({one.setting['device']})" for one in self.answers)
            raise UsageError(f"there is an answer for each of {told}: take one of .answers")
        return self.answers[0].choice

    def as_json(self) -> dict[str, Any]:
        """As `harness recommend --json` prints it."""
        return {
            "n": self.n, "runs": [str(folder) for folder in self.folders],
            "measured": str(self.measured) if self.measured else None,
            "answers": [as_json(answer) for answer in self.answers],
            "policy": self.policy.as_json() if self.policy else None,
        }  # fmt: skip

    def __repr__(self) -> str:
        texts = [as_text(answer).rstrip("\n") for answer in self.answers]
        return "\n\n".join([*texts, *([folded(str(self.policy), 2)] if self.policy else [])])


class Limits(TypedDict, total=False):
    """What a choice must keep to: milliseconds a call, approximation error, MiB above the inputs, what models with it
    are known to reach on a task; by whose time."""

    budget_ms: float | None
    max_error: float | None
    max_memory: float | None
    task: str | None
    min_accuracy: float | None
    max_task_error: float | None
    by: str


def recommend(
    runs: Stored | Iterable[Stored] = (), *, budget_ms: float | None = None, max_error: float | None = None,
    max_memory: float | None = None, task: str | None = None, min_accuracy: float | None = None,
    max_task_error: float | None = None, by: str = "latency",
    measure: bool | None = None, out: str | Path | None = None, emit: str | Path | None = None,
    config: str | Path | None = None, progress: bool = True, **keys: Unpack[Keys],
) -> Recommendation:  # fmt: skip
    """Which attention to take for n tokens within limits, from stored runs: the best exact and the best other, the
    runner-up, what is known to be kept, the doubts.

    runs: Runs or folders; all under results/ where none is named. n must be given, unless scope="model" (its model and
    resolution tell) or emit. budget_ms: of a call, its interval included; max_error: of the approximation error;
    max_memory: MiB above the inputs; task, min_accuracy: what models with it are known to reach, such as "recall" and
    0.95; max_task_error: the same of a task that is told by an error, such as "darcy" and 0.1; by: whose time, latency
    (the device's), host, or eager (the longer). measure: measure here what is missing, into `out` (results/<time>); by
    default only where no run is named and nothing stored answers. emit: write what is fastest among equals at every
    stored size into this file, for attentions.Policy.
    Raises UsageError, NothingToCompare where there are no such rows.
    """
    given, _ = split(over_file(Path(config) if config else None, keys))
    several = [runs] if isinstance(runs, Run | str | Path) else list(runs)
    limits = Limits(
        budget_ms=budget_ms, max_error=max_error, max_memory=max_memory, task=task, min_accuracy=min_accuracy,
        max_task_error=max_task_error, by=by,
    )  # fmt: skip
    with listening(progress=progress, at_once=False) as listener:
        return answered(
            given, several, limits, measure=measure, out=Path(out) if out else None, listener=listener,
            emit=Path(emit) if emit else None,
        )  # fmt: skip


def answered(
    given: Mapping[str, Any], runs: Sequence[Stored], limits: Limits, *, measure: bool | None,
    out: Path | None, listener: Listener, emit: Path | None = None,
) -> Recommendation:  # fmt: skip
    """What `recommend` returns, its progress told to a listener. given: keys of the sweep; see `recommend`."""
    asked = measure_candidates.Asked.parse(given, every_n=emit is not None)
    wish = asked.wish(**{"budget_ms": None, "max_error": None, "max_memory": None, **limits})
    if emit is not None:
        policy.check_target(emit)
    stored, skipped = _stored(runs)
    for text in skipped:
        listener.warn(text)
    known = catalogue.cached(asked.sweep.plugin) or {"attentions": {}}
    asked.check_names(stored, known["attentions"])
    kinds, defaults = catalogue.kinds(known["attentions"]), catalogue.defaults(known["attentions"])
    if emit is not None and "n" not in given and not asked.of_model:
        written = policy.write(emit, stored, asked, by=wish.by, kinds=kinds, defaults=defaults)
        return Recommendation(n=None, answers=(), folders=_folders(stored), measured=None, policy=written)
    try:
        answers = asked.answers(stored, wish, kinds=kinds, defaults=defaults) if not measure else []
    except NothingToCompare:
        if measure is False or runs:
            raise
        answers = []
    answerable = any(answer.ranking or answer.refused for answer in answers)
    folder = None
    if measure or (measure is None and not runs and not answerable):
        folder, machine = measure_candidates.measure(asked, stored, out or fresh(RESULTS), listener=listener)
        stored += [figures.load(folder)] if folder else []
        answers = asked.answers(stored, wish, kinds=kinds, defaults=defaults, machine=machine)
    if not answers:
        which = "--scope model" if asked.of_model else f"--n {wish.n}"
        raise NothingToCompare(f"no stored run holds such rows; measure them: harness recommend {which} --measure")
    written = (
        policy.write(emit, stored, asked, by=wish.by, kinds=kinds, defaults=defaults) if emit is not None else None
    )
    sizes = {answer.wish.n for answer in answers}
    return Recommendation(
        n=sizes.pop() if len(sizes) == 1 else None, answers=tuple(answers), folders=_folders(stored),
        measured=folder, policy=written,
    )  # fmt: skip


def _folders(stored: Sequence[figures.Run]) -> tuple[Path, ...]:
    return tuple(run.folder for run in stored)


def closing(run: Stored) -> str:
    """The sentence that a run ends with: who is fastest at its largest n, and by how much; "" where nobody is."""
    known = catalogue.cached([], compute=False) or {"attentions": {}}  # the run's own words do, without torch
    (part,) = (run if isinstance(run, Run) else Run((Path(run),))).parts
    return printable(closing_of(part, kinds=catalogue.kinds(known["attentions"])), limit=600)


def _stored(runs: Sequence[Stored]) -> tuple[list[figures.Run], list[str]]:
    if not runs:
        return measure_candidates.stored([], results=RESULTS)
    found = [run if isinstance(run, Run) else read(run) for run in runs]
    parts = {part.folder: part for run in found for part in run.parts}
    return [*parts.values()], []

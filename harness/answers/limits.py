"""What a user asks for, n and limits; and which of the limits a candidate breaks, and by how much.

    wish = Wish(n=4096, m=(64,), budget_ms=10)
    for text, excess in breaches(candidate, wish, known): print(text)      # nothing where it meets them all

A limit is met when the interval's upper end meets it, an accuracy when the worst seed does. The error against softmax
attention judges what estimates softmax attention, and nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.answers.candidates import Candidate, Failed
from harness.answers.known import Known
from harness.answers.wording import error_of, figure, told
from harness.errors import UsageError, unknown
from harness.store.record import merit


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked: n tokens, and limits where there are any.

    m: only these, every m where empty; attention: only these, such as anchor or anchor:sdpa; budget_ms: of one call;
    max_error: of the approximation error; max_memory_mib: of the peak above the inputs; task, min_accuracy or
    max_task_error: what models are known to reach on a task, in their worst seed (harness.answers.known); by: whose
    time counts, as the rows have it already (harness.store.clock).
    """

    n: int
    m: tuple[int, ...] = ()
    attention: tuple[str, ...] = ()
    budget_ms: float | None = None
    max_error: float | None = None
    max_memory_mib: float | None = None
    task: str = ""
    min_accuracy: float | None = None
    max_task_error: float | None = None
    by: str = "latency"


def asked_for(one: Candidate | Failed, wish: Wish) -> bool:
    """Whether the wish's m and variants let it in; variants without m are in with every m."""
    m = not wish.m or one.m is None or one.m in wish.m
    return m and (not wish.attention or bool({one.attention, one.implementation} & set(wish.attention)))


def check_task(wish: Wish, known: Known) -> None:
    """Raise UsageError for a task that nothing is known of, or that is told by the other kind of limit."""
    if not wish.task:
        return
    told = {one.metric: one.is_error for one in known.reached if one.task == wish.task}
    if not told:
        raise UsageError(unknown("task", wish.task, known.tasks))
    is_error = all(told.values())
    if is_error != (wish.max_task_error is not None):
        kind, limit = ("an error", "--max-task-error") if is_error else ("an accuracy", "--min-accuracy")
        raise UsageError(f"{wish.task} is told by {kind}, {', '.join(told)}: give {limit} with --task {wish.task}")


def breaches(candidate: Candidate, wish: Wish, known: Known) -> list[tuple[str, float]]:
    """Each limit that it does not surely meet: in words, and the figure over the limit."""
    found = []
    time, budget = candidate.time, wish.budget_ms
    if budget is not None and time.surely > budget:
        within = "within the budget, but its interval is not" if time.ms <= budget else f"over {figure(budget)} ms"
        found.append((f"{told(candidate)}: {within}", time.surely / budget))
    for what, value, most, unit in (
        ("approximation error", candidate.error, wish.max_error, ""),
        ("peak memory", candidate.memory, wish.max_memory_mib, " MiB"),
    ):
        if most is None:
            continue
        if what == "approximation error" and candidate.different:
            by_design = f"no estimate of softmax attention: its {what}, {error_of(candidate)}, judges nothing"
            found.append((by_design, math.inf))
        elif value is None:
            found.append((f"its {what} was not measured", math.inf))
        elif value > most:
            over = value / most if most else math.inf
            found.append((f"{what} {figure(value)}{unit}, over {figure(most)}{unit}", over))
    if wish.task:
        found += _short(candidate, wish, known)
    return found


def _short(candidate: Candidate, wish: Wish, known: Known) -> list[tuple[str, float]]:
    """Whether models with it are not known to do a task so well: in the worst seed of every problem of the task."""
    reached = [one for one in known.of_candidate(candidate) if one.task == wish.task]
    if not reached:
        return [(f"nothing is known of its {wish.task}", math.inf)]
    worst = min(reached, key=lambda one: merit(one.metric, one.worst))
    limit = wish.max_task_error if worst.is_error else wish.min_accuracy
    if limit is None or merit(worst.metric, worst.worst) >= merit(worst.metric, limit):
        return []
    beyond = "over" if worst.is_error else "under"
    told_of = f"{worst.where}: {worst.metric} {worst.worst:.3f} in its worst seed, {beyond} {figure(limit)}"
    over = (worst.worst, limit) if worst.is_error else (limit, worst.worst)
    return [(told_of, over[0] / over[1] if over[1] else math.inf)]

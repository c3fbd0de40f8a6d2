"""The two lines that an answer opens with, and what models with the best one that is not exact are known to keep.

exact_line(answer)     # ("Exact: flash is the fastest at n = 4096: 166 ms (162 to 170).", its candidate)
other_line(answer)     # ("Not exact: anchor m=16 is the fastest at n = 4096: 1.98 ms …, 83.8× as fast as flash; …", …)
kept(answer)           # ["m is a choice: …", "Known of anchor m=16: recall (…): top1 0.987 (…), …"]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.answers.candidates import Candidate, Ratio
from harness.answers.known import Reached
from harness.answers.wording import figure, told
from harness.store.record import merit

if TYPE_CHECKING:
    from harness.answers.recommend import Answer

Line = tuple[str, Candidate | None]
SEE = "docs/which.md says what was looked at, docs/recall.md how to find out"
MOST_M = 6


def exact_line(answer: Answer) -> Line | None:
    """The best exact one; None where none was asked for."""
    return _line(answer, answer.best_exact, "Exact", exact=True)


def other_line(answer: Answer) -> Line | None:
    """The best of the others, and how many times as fast it is; None where none was asked for."""
    best = answer.best_other
    if answer.wish.max_error == 0 and best is None:
        return None  # only an exact one has no error
    line = _line(answer, best, "Not exact", exact=False)
    if line is None or best is None:
        return line
    beside = f", {speed(answer.beside[1], answer.beside[0].name)}" if answer.beside else ""
    return f"{line[0].removesuffix('.')}{beside}; {nature(best)}.", best


def speed(lead: Ratio, name: str) -> str:
    """`83.8× (82.6 to 85.1) as fast as flash`; that they cannot be told apart where the interval holds 1."""
    interval = f" ({figure(lead.low)} to {figure(lead.high)})" if lead.low is not None else ""
    tie = ", which these figures cannot tell from a tie" if lead.low is not None and not lead.told_apart else ""
    return f"{figure(lead.value)}×{interval} as fast as {name}{tie}"


def nature(one: Candidate) -> str:
    """What one that is not exact computes."""
    return "it computes something else" if one.different else "it is an approximation"


def kept(answer: Answer) -> list[str]:
    """What is known of the accuracy of the best one that is not exact, its m as a choice first where it is one."""
    best = answer.best_other
    if best is None:
        return []
    lines = [] if answer.wish.m else _choice_of_m(answer, best)
    found = answer.reached
    if found:
        lines += [f"Known of {best.name}: {answer.known.told(one)}." for one in found]
        if answer.wish.n not in (sizes := sorted({one.n for one in found})):
            lines.append(f"Those models have n = {_listed(sizes)}: at n = {answer.wish.n} no accuracy was measured.")
        return lines
    sizes = sorted({one.m for one in answer.known.elsewhere(best) if one.m is not None})
    instead = f" (of m = {_listed(sizes)} something is)" if sizes else ""
    return [*lines, f"Nothing is known of the accuracy of {best.name}{instead}; {SEE}."]


def _line(answer: Answer, best: Candidate | None, title: str, *, exact: bool) -> Line | None:
    n, wish = answer.wish.n, answer.wish
    if best is None:
        near = next((one for one in answer.refused if one.candidate.exact == exact), None)
        if near is None:
            asked = not wish.attention and exact
            return (f"{title}: none has a figure at n = {n}.", None) if asked else None
        return f"{title}: none keeps the limits at n = {n}; nearest: {near.candidate.name}, {near.reasons[0]}.", None
    alone = sum(one.exact == exact for one in answer.ranking) == 1
    why = "is the only one" if alone else "is the fastest"
    others = (wish.max_memory_mib, wish.task or None, None if exact else wish.max_error)  # exact ones have no error
    if any(limit is not None for limit in others):
        why = "keeps the limits"
    elif wish.budget_ms is not None:
        why = "keeps the budget"
    between = ", interpolated" if best.between else ""
    return f"{title}: {best.name} {why} at n = {n}: {told(best)}{between}.", best


def _choice_of_m(answer: Answer, best: Candidate) -> list[str]:
    """Each m of its variant and options that meets the wish, with its time and what is known of it, by rising m."""
    own = [
        one for one in answer.ranking
        if (one.attention, one.options) == (best.attention, best.options) and one.m is not None
    ]  # fmt: skip
    fastest = {one.m: one for one in reversed(own)}  # the ranking has the fastest of several backends first
    if len(fastest) < 2:
        return []
    each = [_briefly(answer, fastest[m]) for m in sorted(fastest, key=lambda m: m or 0)[:MOST_M]]
    return [f"m is a choice, not part of the answer: {'; '.join(each)}."]


def _briefly(answer: Answer, one: Candidate) -> str:
    """`m=16 takes 1.98 ms, at worst recall 0.984`."""
    worst: dict[str, Reached] = {}
    for each in answer.known.of_candidate(one):
        worst[each.task] = min(worst.get(each.task, each), each, key=lambda one: merit(one.metric, one.worst))
    said = ", ".join(f"{task}{' error' if each.is_error else ''} {each.worst:.3f}" for task, each in worst.items())
    return f"m={one.m} takes {figure(one.time.ms)} ms, {f'at worst {said}' if said else 'nothing known of it'}"


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))

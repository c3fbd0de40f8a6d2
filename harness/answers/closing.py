"""The sentence that a run ends with: who is fastest at its largest n, and by how much. No torch.

closing(figures.load(folder), kinds={})
# "anchor m=64 is 30.9× (30.1 to 31.6) as fast as flash, the best exact one, at n = 4096; it computes something else"
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.answers.candidates import Candidate, Stock, ratio
from harness.answers.headline import nature
from harness.answers.recommend import measured
from harness.answers.wording import figure
from harness.figures import Run


def closing(run: Run, *, kinds: Mapping[str, str]) -> str:
    """The sentence, of the first setting of the run in which two can be compared; "" where none has two.

    The fastest exact variant against the fastest other one; of one sort alone, the fastest two. Who rests on a machine
    that was not quiet is said first.
    """
    if run.frame.empty:
        return ""
    stock = Stock([run], kinds=kinds)
    found = list(stock.settings())
    for setting, lines in found:
        for n in reversed(measured(lines)):
            candidates, _ = stock.at(lines, n)
            candidates = [one for one in candidates if one.between is None]
            pair = _pair(candidates)
            if pair is None:
                continue
            where = f"n = {n}" if len(measured(lines)) > 1 else ""
            if len(found) > 1:
                where = f"n = {n}, {setting['phase']}, {setting['dtype']}, b={setting['b']} h={setting['h']}"
            return _sentence(*pair, candidates, where=f" at {where}" if where else "")
    return ""


def _pair(candidates: list[Candidate]) -> tuple[Candidate, Candidate] | None:
    """The faster and the slower of those to be compared."""
    exact, other = ([one for one in candidates if one.exact == sort] for sort in (True, False))
    if exact and other:
        first, second = sorted((exact[0], other[0]), key=lambda one: one.time.ms)
        return first, second
    return (candidates[0], candidates[1]) if len(candidates) > 1 else None


def _sentence(first: Candidate, second: Candidate, among: list[Candidate], *, where: str) -> str:
    lead = ratio(second, first)
    interval = f" ({figure(lead.low)} to {figure(lead.high)})" if lead.low is not None else ""
    times = f"{figure(lead.value)}×{interval}"
    tie = lead.low is not None and not lead.told_apart
    if tie:
        text = f"{first.name} and {second.name} cannot be told apart{where}: {times}"
    elif first.exact == second.exact:
        text = f"{first.name} is {times} as fast as {second.name}, the next one{',' if where else ''}{where}"
    elif second.exact:
        text = f"{first.name} is {times} as fast as {second.name}, the best exact one{',' if where else ''}{where}"
    else:
        text = f"{first.name}, the best exact one, is {times} as fast as {second.name}{where}"
    other = next((one for one in (first, second) if not one.exact), None)
    if other is not None and first.exact != second.exact:
        text += f"; {nature(other) if other is first and not tie else nature(other).replace('it', other.name, 1)}"
        sizes = sorted({one.m for one in among if one.attention == other.attention and one.m is not None})
        if len(sizes) > 1 and not tie:
            text += f"; of m = {', '.join(map(str, sizes))} the fastest, which says nothing of its accuracy"
    doubted = [one.name for one in (first, second) if one.contended]
    return f"CONTENDED, measured beside other work ({', '.join(doubted)}): {text}" if doubted else text

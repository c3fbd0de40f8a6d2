"""The recommendation for every choice of n, m and exactness that the page offers, as data. The logic is recommend's.

    answers = of_settings(rows.groups, rows.settings, kinds=kinds)     # for each setting: {"4096|64": answer, …}
    answers[0]["4096|64"]["headline"]

Keys: `n|m`, `n|all` for every m together, `n|exact` for exact variants only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.answers.candidates import Candidate, Stock, known_kinds
from harness.answers.known import NO_DEFAULTS, Known
from harness.answers.recommend import Answer, Wish, drift, judge, measured
from harness.report.rows import Group, Setting
from harness.store.selection import FILE, PANEL


def of_settings(
    groups: Sequence[Group], found: Sequence[Setting], *, kinds: Mapping[str, str],
    defaults: Mapping[str, Mapping[str, str]] = NO_DEFAULTS,
) -> list[dict[str, Any]]:  # fmt: skip
    """The answers of each setting, in order. Each group is a stock of its own: two are never ranked together.

    What is known of accuracies holds for all: they are of all the runs, and of the shipped studies.
    """
    stocks = [Stock(group.parts, kinds=kinds) for group in groups]
    runs = [run for group in groups for run in group.parts]
    known = Known.of(runs, kinds=known_kinds(runs, kinds), defaults=defaults)
    lines = {
        (at, *_key(values)): (stock, values, own) for at, stock in enumerate(stocks) for values, own in stock.settings()
    }
    return [_answers(*lines[(setting.run, *_key(setting.values))], known) for setting in found]


def _answers(stock: Stock, values: Mapping[str, Any], lines: Sequence[Any], known: Known) -> dict[str, Any]:
    sizes, own_m = measured(lines), sorted({line.m for line in lines if line.m is not None})
    facts: dict[str, Any] = {"measured": sizes, "drift": drift(stock, lines), "known": known}
    found = {}
    for n in sizes:
        candidates, failed = stock.at(lines, n)
        asked: dict[str, dict[str, Any]] = {"all": {}, "exact": {"max_error": 0.0}}
        asked |= {str(m): {"m": (m,)} for m in own_m}
        wishes = {name: Wish(n=n, by=stock.runs[0].clock, **more) for name, more in asked.items()}
        for name, wish in wishes.items():
            found[f"{n}|{name}"] = _as_data(judge(values, wish, candidates, failed, **facts))
    return found


def _as_data(answer: Answer) -> dict[str, Any]:
    first = answer.choice
    return {
        "headline": answer.headline,
        "lines": [
            {"text": text, "series": named.series if named else None, "m": named.m if named else None}
            for text, named in answer.lines
        ],
        "kept": answer.kept,
        "reasons": answer.reasons,
        "unknown": answer.unknown,
        "ranking": [_candidate(one, first) for one in answer.ranking],
    }


def _candidate(one: Candidate, first: Candidate | None) -> dict[str, Any]:
    return {
        "series": one.series, "m": one.m, "exact": one.exact, "ms": one.time.ms, "low": one.time.low,
        "high": one.time.high, "error": one.error, "memory": one.memory,
        "times": one.time.ms / first.time.ms if first else None,
    }  # fmt: skip


def _key(values: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(values[name] for name in (*FILE, *PANEL))

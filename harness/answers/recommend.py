"""Which variant to take at a token count, and why: from stored rows, with margins, intervals and what is not known.

    stock = Stock([figures.load(Path("results/cpu/sweep"))], kinds={"flash": "exact"})
    for answer in recommend(stock, Wish(n=4096, m=(64,), budget_ms=10)): print(answer.headline)

Without a budget the fastest that meets the limits is chosen. With one, an exact variant that keeps it comes before any
approximation: what is faster than asked for is worth no error. A limit is met when the interval's upper end meets it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.answers.candidates import Candidate, Failed, Line, Ratio, Stock, ratio
from harness.answers.wording import doubts, error_of, figure, holds_for, reason_of, times, told
from harness.store import clock

DRIFT = 0.05
MOST_DOUBTED = 3


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked: n tokens, and limits where there are any.

    m: only these, every m where empty; attention: only these, such as anchor or anchor:sdpa; budget_ms: of one call;
    max_error: of the approximation error; max_memory_mib: of the peak above the inputs; by: whose time counts, as the
    rows have it already (harness.store.clock).
    """

    n: int
    m: tuple[int, ...] = ()
    attention: tuple[str, ...] = ()
    budget_ms: float | None = None
    max_error: float | None = None
    max_memory_mib: float | None = None
    by: str = "latency"


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A candidate that breaks a limit: each breach in words, and by what factor it misses the limit it misses most."""

    candidate: Candidate
    reasons: tuple[str, ...]
    excess: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The recommendation of one setting (machine, device, scope, shape, phase, dtype).

    ranking: those that meet the wish, best first; refused: the others, nearest first; failed: those without a figure;
    outside: the measured n of the setting, where n lies beyond them for every variant.
    """

    setting: Mapping[str, Any]
    wish: Wish
    ranking: tuple[Candidate, ...]
    refused: tuple[Refused, ...]
    failed: tuple[Failed, ...]
    measured: tuple[int, ...]
    drift: float | None = None
    remarks: tuple[str, ...] = field(default=())

    @property
    def choice(self) -> Candidate | None:
        """The recommendation, or None where nothing meets the wish."""
        return self.ranking[0] if self.ranking else None

    @property
    def runner_up(self) -> Candidate | None:
        """The next best, or None."""
        return self.ranking[1] if len(self.ranking) > 1 else None

    @cached_property
    def margin(self) -> Ratio | None:
        """The runner-up's latency over the choice's."""
        return ratio(self.ranking[1], self.ranking[0]) if len(self.ranking) > 1 else None

    @cached_property
    def exact(self) -> tuple[Candidate, Ratio] | None:
        """The fastest exact candidate other than the choice, limits or no limits, and its latency over the choice's."""
        everyone = [*self.ranking, *(refused.candidate for refused in self.refused)]
        others = [c for c in everyone if c.exact and c is not self.choice]
        best = min(others, key=lambda candidate: candidate.time.ms, default=None)
        return None if best is None or self.choice is None else (best, ratio(best, self.choice))

    @property
    def nearest(self) -> Refused | None:
        """Who comes closest to the limits, where nobody meets them."""
        return self.refused[0] if self.refused and not self.ranking else None

    @property
    def contended(self) -> list[Candidate]:
        """Those of the ranked and refused whose time was measured while the machine had other work."""
        return [c for c in (*self.ranking, *(one.candidate for one in self.refused)) if c.contended]

    @property
    def headline(self) -> str:
        """The answer in one sentence; before it, what of it rests on a machine that was not quiet."""
        doubted = [candidate.name for candidate in self.contended]
        if not doubted:
            return self._verdict()
        more = f" and {len(doubted) - 3} more" if len(doubted) > 3 else ""
        return f"CONTENDED, measured beside other work ({', '.join(doubted[:3])}{more}): {self._verdict()}"

    def _verdict(self) -> str:
        n = self.wish.n
        choice = self.choice
        if choice is None:
            return f"Nothing that was measured meets this at n = {n}." if self.refused else self._nothing()
        kind = "exact" if choice.exact else "an approximation"
        between = ", interpolated" if choice.between else ""
        why = "is the fastest" if self.wish.budget_ms is None else "keeps the budget"
        if self.wish.budget_ms is None and len(self.ranking) == 1:
            why = "is the only candidate"
        return f"{choice.name} ({kind}) {why} at n = {n}: {told(choice)}{between}."

    @property
    def reasons(self) -> list[str]:
        """Why this one: its lead over the runner-up and over exact attention, or who comes nearest."""
        if self.choice is None:
            near = self.nearest
            return [f"Nearest: {near.candidate.name}, {'; '.join(near.reasons)}.", *self._clock()] if near else []
        lines = []
        if self.runner_up is not None and self.margin is not None:
            lines.append(self._lead(self.runner_up, self.margin))
        exact = self.exact
        if exact is not None and exact[0] is not self.runner_up:
            other = "other " if self.choice.exact else ""
            lines.append(f"{exact[0].name}, the fastest {other}exact one, takes {times(exact[1])}: {told(exact[0])}.")
        return [*lines, *self._clock()]

    @cached_property
    def unknown(self) -> list[str]:
        """What the stored figures do not say, the most important first."""
        choice = self.choice
        lines = [
            f"{one.name} was timed while the machine was not quiet: {one.contended}; measure it again."
            for one in self.contended[:MOST_DOUBTED]
        ]
        lines += doubts(choice) if choice else []
        lines += self.remarks
        if self.drift is not None and abs(self.drift) > DRIFT:
            lines.append(
                f"The machine drifted by {100 * self.drift:+.1f} % during the run; intervals do not cover that."
            )
        runs = {candidate.run_id for candidate in self.ranking}
        if len(runs) > 1:
            lines.append(f"Its figures come from {len(runs)} runs: drift between them is in no interval.")
        absent = list(dict.fromkeys(f"{failed.name} ({reason_of(failed)})" for failed in self.failed))
        if absent:
            more = f" and {len(absent) - 4} more" if len(absent) > 4 else ""
            lines.append(f"Not compared, for want of a figure: {', '.join(absent[:4])}{more}.")
        return lines

    def _lead(self, second: Candidate, margin: Ratio) -> str:
        kind = "exact" if second.exact else f"approximation error {error_of(second)}"
        line = f"Runner-up: {second.name} ({kind}) at {told(second)}, {times(margin)}"
        if self.choice is not None and self.choice.time.ms > second.time.ms:
            return f"{line}: faster, but what keeps the budget exactly comes first."
        return f"{line}." if margin.told_apart else f"{line}, which these figures cannot tell from a tie."

    def _clock(self) -> list[str]:
        """Whose time it is, where a device has one apart from its host's."""
        return list(filter(None, [clock.told(self.wish.by, self.setting["device"])]))

    def _nothing(self) -> str:
        n = self.wish.n
        if not self.measured:
            return f"Nothing was measured for n = {n} here."
        low, high = self.measured[0], self.measured[-1]
        if low <= n <= high:
            return f"Nothing that was asked for has a figure at n = {n}, or on both sides of it."
        return f"n = {n} lies outside what was measured ({low} to {high}), and nothing is extrapolated."


def recommend(
    stock: Stock, wish: Wish, *, keep: Callable[[Mapping[str, Any]], bool] = lambda setting: True
) -> list[Answer]:
    """An answer for each setting that the stock holds and `keep` lets in, in its order."""
    answers = []
    for setting, lines in stock.settings():
        if not keep(setting):
            continue
        candidates, failed = stock.at(lines, wish.n)
        answers.append(
            judge(setting, wish, candidates, failed, measured=measured(lines), drift=drift(stock, lines))
        )  # fmt: skip
    return answers


def judge(
    setting: Mapping[str, Any], wish: Wish, candidates: Sequence[Candidate], failed: Sequence[Failed], *,
    measured: Sequence[int], drift: float | None,
) -> Answer:  # fmt: skip
    """The answer among the candidates of one setting at the wish's n (from Stock.at, fastest first)."""
    asked = [candidate for candidate in candidates if _asked(candidate, wish)]
    breaches = [_breaches(candidate, wish) for candidate in asked]
    meeting = [candidate for candidate, found in zip(asked, breaches, strict=True) if not found]
    if wish.budget_ms is not None:
        meeting.sort(key=lambda candidate: (not candidate.exact, candidate.time.ms))
    refused = [
        Refused(candidate=candidate, reasons=tuple(text for text, _ in found), excess=max(by for _, by in found))
        for candidate, found in zip(asked, breaches, strict=True)
        if found
    ]
    refused.sort(key=lambda one: (one.excess, one.candidate.time.ms))
    return Answer(
        setting=setting, wish=wish, ranking=tuple(meeting), refused=tuple(refused),
        failed=tuple(one for one in failed if _asked(one, wish)), measured=tuple(measured), drift=drift,
        remarks=(holds_for(setting),),
    )  # fmt: skip


def as_json(answer: Answer) -> dict[str, Any]:
    """An answer as a JSON object: times in ms, memory in MiB, null for what is not known."""
    exact = answer.exact
    return {
        "setting": dict(answer.setting),
        "by": answer.wish.by,
        "headline": answer.headline,
        "reasons": answer.reasons,
        "unknown": answer.unknown,
        "choice": _as_data(answer.choice),
        "runner_up": _as_data(answer.runner_up),
        "runner_up_over_choice": _ratio_as_data(answer.margin),
        "fastest_exact": _as_data(exact[0]) if exact else None,
        "fastest_exact_over_choice": _ratio_as_data(exact[1]) if exact else None,
        "ranking": [_as_data(candidate) for candidate in answer.ranking],
        "refused": [{**(_as_data(one.candidate) or {}), "reasons": list(one.reasons)} for one in answer.refused],
        "failed": [
            {"attention": one.attention, "m": one.m, "status": one.status, "note": one.note} for one in answer.failed
        ],
    }


def _as_data(one: Candidate | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "attention": one.attention, "backend": one.backend, "label": one.label, "m": one.m, "exact": one.exact,
        "latency_ms": one.time.ms, "ci_low_ms": one.time.low, "ci_high_ms": one.time.high, "samples": one.samples,
        "approximation_error": one.error, "peak_memory_mib": one.memory, "interpolated_between": one.between,
        "interpolation_misses_by": one.miss, "contended": one.contended, "run_id": one.run_id,
    }  # fmt: skip


def _ratio_as_data(of: Ratio | None) -> dict[str, float | None] | None:
    return None if of is None else {"ratio": of.value, "ci_low": of.low, "ci_high": of.high}


def measured(lines: Sequence[Line]) -> list[int]:
    """The n at which any line has a value."""
    return sorted({int(row.n) for line in lines for row in line.good})


def drift(stock: Stock, lines: Sequence[Line]) -> float | None:
    """The largest canary drift of the runs behind these lines."""
    runs = sorted({row.run for line in lines for row in line.rows})
    return max((moved for at in runs for moved in drifts(stock.runs[at].environment)), key=abs, default=None)


def drifts(environment: Mapping[str, Any]) -> list[float]:
    """The canary drift of each session of a run and, where it ran in several places, of each of them."""
    sessions = [one for one in environment.get("sessions") or [] if isinstance(one, dict)]
    places = [place for one in sessions if isinstance(one.get("places"), dict) for place in one["places"].values()]
    moved = [one.get("canary_drift") for one in (*sessions, *places) if isinstance(one, dict)]
    return [value for value in moved if isinstance(value, int | float)]


def _asked(one: Candidate | Failed, wish: Wish) -> bool:
    """Whether the wish's m and variants let it in; variants without m are in with every m."""
    m = not wish.m or one.m is None or one.m in wish.m
    return m and (not wish.attention or bool({one.attention, one.implementation} & set(wish.attention)))


def _breaches(candidate: Candidate, wish: Wish) -> list[tuple[str, float]]:
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
        if value is None:
            found.append((f"its {what} was not measured", math.inf))
        elif value > most:
            over = value / most if most else math.inf
            found.append((f"{what} {figure(value)}{unit}, over {figure(most)}{unit}", over))
    return found

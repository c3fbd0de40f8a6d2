"""Which variant to take at a token count, and why: from stored rows, with margins, intervals and what is not known.

    stock = Stock([figures.load(Path("results/cpu/sweep"))], kinds={"flash": "exact"})
    for answer in recommend(stock, Wish(n=4096, m=(64,), budget_ms=10)): print(answer.headline)

An answer is two lines, the best exact one and the best of the others, and what models with that one are known to keep.
Without a budget the fastest that meets the limits is chosen. With one, an exact variant that keeps it comes before any
approximation: what is faster than asked for is worth no error. A limit is met when the interval's upper end meets it,
an accuracy when the worst seed does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.answers.candidates import Candidate, Failed, Line, Ratio, Stock, ratio
from harness.answers.headline import exact_line, kept, other_line
from harness.answers.known import Known, Reached
from harness.answers.limits import Wish, asked_for, breaches
from harness.answers.wording import doubts, error_of, holds_for, reason_of, times, told
from harness.store import clock

DRIFT = 0.05
MOST_DOUBTED = 3


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
    measured: the n of the setting; known: what is known of accuracies.
    """

    setting: Mapping[str, Any]
    wish: Wish
    ranking: tuple[Candidate, ...]
    refused: tuple[Refused, ...]
    failed: tuple[Failed, ...]
    measured: tuple[int, ...]
    known: Known
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

    @property
    def best_exact(self) -> Candidate | None:
        """The fastest exact one that meets the wish, or None."""
        return min((one for one in self.ranking if one.exact), key=lambda one: one.time.ms, default=None)

    @property
    def best_other(self) -> Candidate | None:
        """The fastest that meets the wish and is not exact, or None."""
        return min((one for one in self.ranking if not one.exact), key=lambda one: one.time.ms, default=None)

    @cached_property
    def beside(self) -> tuple[Candidate, Ratio] | None:
        """What the best other one is set against, the best exact one, or the fastest where none meets the limits; and
        that one's latency over the other's."""
        broken = (one.candidate for one in self.refused if one.candidate.exact)
        exact = self.best_exact or min(broken, key=lambda one: one.time.ms, default=None)
        other = self.best_other
        return None if exact is None or other is None else (exact, ratio(exact, other))

    @cached_property
    def reached(self) -> list[Reached]:
        """What models with the best one that is not exact are known to reach."""
        return [] if self.best_other is None else self.known.of_candidate(self.best_other)

    @cached_property
    def kept(self) -> list[str]:
        """The same in sentences, with m as a choice where none was asked for; that nothing is known where it is so."""
        return kept(self)

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
    def lines(self) -> list[tuple[str, Candidate | None]]:
        """The answer: a line on the best exact one and one on the best other, each with whom it names.

        Before them, what of it rests on a machine that was not quiet.
        """
        if self.choice is None:
            none = f"Nothing that was measured meets this at n = {self.wish.n}." if self.refused else self._nothing()
            lines: list[tuple[str, Candidate | None]] = [(none, None)]
        else:
            lines = [line for line in (exact_line(self), other_line(self)) if line is not None]
        doubted = [candidate.name for candidate in self.contended]
        if doubted:
            more = f" and {len(doubted) - 3} more" if len(doubted) > 3 else ""
            text, named = lines[0]
            lines[0] = (f"CONTENDED, measured beside other work ({', '.join(doubted[:3])}{more}): {text}", named)
        return lines

    @property
    def headline(self) -> str:
        """The lines as one text."""
        return "\n".join(text for text, _ in self.lines)

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
        told_of = (self.runner_up, self.beside[0] if self.beside else None)
        if exact is not None and exact[0] not in told_of:
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
    stock: Stock, wish: Wish, *, keep: Callable[[Mapping[str, Any]], bool] = lambda setting: True,
    known: Known | None = None,
) -> list[Answer]:  # fmt: skip
    """An answer for each setting that the stock holds and `keep` lets in, in its order.

    known: what is known of accuracies; the runs' own and the shipped ones by default.
    """
    known = Known.of(stock.runs, kinds=stock.kinds) if known is None else known
    answers = []
    for setting, lines in stock.settings():
        if not keep(setting):
            continue
        candidates, failed = stock.at(lines, wish.n)
        answers.append(
            judge(
                setting, wish, candidates, failed, measured=measured(lines), drift=drift(stock, lines), known=known
            )
        )  # fmt: skip
    return answers


def judge(
    setting: Mapping[str, Any], wish: Wish, candidates: Sequence[Candidate], failed: Sequence[Failed], *,
    measured: Sequence[int], drift: float | None, known: Known,
) -> Answer:  # fmt: skip
    """The answer among the candidates of one setting at the wish's n (from Stock.at, fastest first)."""
    asked = [candidate for candidate in candidates if asked_for(candidate, wish)]
    broken = [breaches(candidate, wish, known) for candidate in asked]
    meeting = [candidate for candidate, found in zip(asked, broken, strict=True) if not found]
    if wish.budget_ms is not None:
        meeting.sort(key=lambda candidate: (not candidate.exact, candidate.time.ms))
    refused = [
        Refused(candidate=candidate, reasons=tuple(text for text, _ in found), excess=max(by for _, by in found))
        for candidate, found in zip(asked, broken, strict=True)
        if found
    ]
    refused.sort(key=lambda one: (one.excess, one.candidate.time.ms))
    return Answer(
        setting=setting, wish=wish, ranking=tuple(meeting), refused=tuple(refused),
        failed=tuple(one for one in failed if asked_for(one, wish)), measured=tuple(measured), known=known, drift=drift,
        remarks=(holds_for(setting),),
    )  # fmt: skip


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

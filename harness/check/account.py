"""The self-test's README: its rates as tables, and what they do not show. Pure formatting.

(folder / "README.md").write_text(text(rates, others, caught, processes=80, threads=1))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.check.decide import PAIRS, PAIRS_THOROUGH
from harness.check.pairs import BLOCK
from harness.check.rules import BEFORE, CHOSEN

if TYPE_CHECKING:
    from harness.check.mutants import Outcome
    from harness.check.selftest import PeerRate, Rate

SETTINGS = {"default": PAIRS, "thorough": PAIRS_THOROUGH}


def text(
    rates: Sequence[Rate], others: Sequence[PeerRate], caught: Sequence[Outcome], *, processes: int, threads: int,
    beside: str = "",
) -> str:  # fmt: skip
    """The folder's README. beside: what else the machine did as the pool was recorded."""
    per = {setting: 2 * BLOCK * (pairs // 2) for setting, pairs in SETTINGS.items()}
    independent = "; ".join(f"{setting}: {processes / count:.1f}" for setting, count in per.items())
    machine = f"with {beside} beside it" if beside else "without other load"
    extras = sorted({rate.extra_percent for rate in rates} - {0})
    shares = ", ".join(map(str, extras[:-1])) + f" and {extras[-1]}" if len(extras) > 1 else str(*extras)
    lines = [
        "# The gate's own error rates",
        "",
        f"Written by `harness check --self-test`, {machine}: {processes} fresh processes (`pool.csv`), each of which "
        f"timed three variants plain and with {shares} % of their work done twice, "
        f"on {threads} thread{'s' if threads > 1 else ''}.",
        "",
        f"A trial is a whole decision with its second round, on blocks of four processes that took turns, drawn from "
        f"the pool without replacement. Trials share blocks, so they are not independent: the pool holds processes for "
        f"this many independent trials: {independent}. The bounds (one-sided 95 %, Clopper-Pearson) hold for drawing "
        "from this pool, and are optimistic for another day on this machine.",
        "",
        *_by_rule(rates),
        "",
        *_by_setting(rates),
        "",
        *_peers(others),
    ]
    if caught:
        lines += ["", "## Mutants", "", "| what was planted | caught as |", "|---|---|"]
        lines += [f"| {o.name} | {o.what if o.caught else '**not caught**'} |" for o in caught]
    return "\n".join(lines) + "\n"


def _by_rule(rates: Sequence[Rate]) -> Iterator[str]:
    """Every rule that was tried: false regressions and the share of real ones found, each of the worst variant."""
    extras = sorted({rate.extra_percent for rate in rates} - {0})
    yield "## Every rule that was tried"
    yield ""
    yield (
        "The share of decisions called *regressed*: of unchanged code the most of any variant, of more work the least. "
        f"`{CHOSEN}` is the gate's, `{BEFORE}` was before it."
    )
    yield ""
    yield f"| rule | setting | unchanged, at most | {' | '.join(f'+{extra} %, at least' for extra in extras)} |"
    yield f"|---|---|---|{'---|' * len(extras)}"
    for rule, setting in dict.fromkeys((rate.rule, rate.setting) for rate in rates):
        mine = [rate for rate in rates if (rate.rule, rate.setting) == (rule, setting)]
        false = max(rate.regressed_rate for rate in mine if not rate.extra_percent)
        found = [min(rate.regressed_rate for rate in mine if rate.extra_percent == extra) for extra in extras]
        yield f"| {rule} | {setting} | {100 * false:.1f} % | {' | '.join(f'{100 * share:.1f} %' for share in found)} |"


def _by_setting(rates: Sequence[Rate]) -> Iterator[str]:
    """The rule of the gate, or the first where that one was not tried, in full."""
    rule = CHOSEN if any(rate.rule == CHOSEN for rate in rates) else rates[0].rule
    yield f"## `{rule}` in full"
    yield ""
    yield "| setting | variant | extra work | realised | regressed | bound | inconclusive | not gateable | ok | again |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for r in (rate for rate in rates if rate.rule == rule):
        bound = (
            f"≤ {100 * r.regressed_at_most:.1f} %" if not r.extra_percent else f"≥ {100 * r.regressed_at_least:.1f} %"
        )
        yield (
            f"| {r.setting} | {r.specimen} | {r.extra_percent} % | {r.realised_percent:+.1f} % | "
            f"{100 * r.regressed_rate:.1f} % of {r.trials} | {bound} | {r.inconclusive} | {r.not_gateable} | {r.ok} | "
            f"{r.second_rounds} |"
        )


def _peers(others: Sequence[PeerRate]) -> Iterator[str]:
    """Other tools' rules on the same samples."""
    extras = sorted({other.extra_percent for other in others})
    yield "## Other tools' rules on the same samples"
    yield ""
    yield (
        "A process against the one in its place in the next block, a run against the run after it, as these tools "
        "compare by the wall clock; the share of comparisons reported as slower."
    )
    yield ""
    yield f"| rule | whose code | {' | '.join(f'+{extra} %' if extra else 'unchanged' for extra in extras)} |"
    yield f"|---|---|{'---|' * len(extras)}"
    for rule in dict.fromkeys(other.rule for other in others):
        mine = [other for other in others if other.rule == rule]
        shares = []
        for extra in extras:
            some = [other for other in mine if other.extra_percent == extra]
            shares.append(f"{100 * sum(o.slower for o in some) / sum(o.comparisons for o in some):.1f} %")
        yield f"| {rule} | {mine[0].source} | {' | '.join(shares)} |"

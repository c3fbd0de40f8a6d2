"""docs/gate.md: how often the gate is wrong, on each pool of processes that was recorded."""

from __future__ import annotations

from quotes import Page, Rows

PAGE = "docs/gate.md"
POOLS = ("quiet", "busy", "crowded")
RULES = {"cpu or wall": "CPU time or wall clock, the gate's", "wall": "wall clock alone"}


def quote(page: Page) -> None:
    rates = {pool: _rates(page.rows(f"results/cpu/gate/{pool}/rates.csv")) for pool in POOLS}
    body = []
    for pool, rows in rates.items():
        for rule, told in RULES.items():
            body += [
                [pool, told, s, *_line(rows, rule, s)] for s in ("default", "thorough") if rows.where(rule=rule).rows
            ]
    page.table("| machine | rule | setting | unchanged called *regressed* | +10 % of work found | left open |", body)
    judged = [row for rows in rates.values() for row in rows.where(rule=tuple(RULES), extra_percent=0)]
    page.say(
        "{} false *regressed* in {} decisions on unchanged code; each 0 of 400 bounds that rate at {:.1f} % (95 %).",
        str(sum(int(row["regressed"]) for row in judged)), f"{sum(int(row['trials']) for row in judged):,}",
        100 * max(float(row["regressed_at_most"]) for row in judged if row["regressed"] == "0"),
    )  # fmt: skip
    more = [row for rows in rates.values() for row in rows.where(rule=_rule(rows), extra_percent=10)]
    missed = max(int(row["ok"]) / int(row["trials"]) for row in more)
    page.say("what it does not find it leaves open: of +10 % at most {:.1f} % were called *ok*.", 100 * missed)
    done = [float(row["realised_percent"]) for row in more]
    page.say("**Doing 10 % of the work twice costs {:.0f} to {:.0f} % of time**", min(done), max(done))
    peers = {pool: page.rows(f"results/cpu/gate/{pool}/peers.csv") for pool in POOLS}
    false, found = ([rate for rows in peers.values() for rate in _by_rule(rows, extra)] for extra in (0, 10))
    page.say(
        "process against process: of unchanged code slower in {:.0f} to {:.0f} % of comparisons; +10 % found "
        "in {:.0f} to {:.0f} %.",
        100 * min(false), 100 * max(false), 100 * min(found), 100 * max(found),
    )  # fmt: skip


def _rates(rows: Rows) -> Rows:
    """With the column `rule`: a pool of before there were several was judged by the wall clock."""
    return Rows(tuple({"rule": "wall"} | row for row in rows), rows.source)


def _rule(rows: Rows) -> str:
    """The gate's rule, or the one before it where a pool was judged by that alone."""
    return next(rule for rule in RULES if rows.where(rule=rule).rows)


def _line(rows: Rows, rule: str, setting: str) -> list[str]:
    """Of the least favourable variant: false alarms at most, found at least, unchanged code left open at most."""
    own = rows.where(rule=rule, setting=setting)
    rate = [
        100 * share
        for share in (max(own.all("regressed_rate", extra_percent=0)), min(own.all("regressed_rate", extra_percent=10)))
    ]
    open_ = max(
        (int(r["inconclusive"]) + int(r["not_gateable"])) / int(r["trials"]) for r in own.where(extra_percent=0)
    )
    return [f"{rate[0]:.1f} %", f"{rate[1]:.1f} %", f"{100 * open_:.1f} %"]


def _by_rule(rows: Rows, extra: int) -> list[float]:
    """Each rule's share of comparisons called slower, over all variants."""
    shares = []
    for rule in dict.fromkeys(row["rule"] for row in rows):
        own = rows.where(rule=rule, extra_percent=extra)
        shares.append(sum(own.all("slower")) / sum(own.all("comparisons")))
    return shares

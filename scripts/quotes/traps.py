"""docs/traps.md: facts that have a file."""

from __future__ import annotations

from quotes import Page, option

PAGE = "docs/traps.md"


def quote(page: Page) -> None:
    kept = page.rows("results/cpu/timing_agreement.csv")
    plain = page.rows("results/cpu/timing_agreement_default_malloc.csv")
    page.say(
        "{:.0f} ms by default, {:.0f} with",
        *(rows.one("harness_ms", attention="full", n=4096) for rows in (plain, kept)),
    )
    page.say(
        "`Timer.blocked_autorange`: {} and {} %",
        *(f"{100 * value:+.1f}" for value in kept.all("difference", attention="anchor")),
    )
    tried = page.rows("results/h100/schedules.csv").where(n=16384, phase="forward")
    groups = [
        min(tried.all("ms", what="persistent", setting=lambda text, size=size: text.startswith(f"group {size} ")))
        for size in (1, 8)
    ]
    page.say(
        "groups of 1 find K in L2 and take {:.3f} ms, groups of 8 read more and take {:.3f}; two launches take {:.3f}.",
        *groups, tried.all("ms", what="split")[0],
    )  # fmt: skip
    reports = [page.rows(f"results/compiler/anchor_triton_{version}.csv") for version in ("3.9.0", "3.6.0")]
    page.say("Of {} kernels {} spill with 3.9 and {} with 3.6", str(len(reports[0].rows)),
             *(str(len(rows.where(spilled_bytes=lambda text: text != "0").rows)) for rows in reports))  # fmt: skip
    shares = page.rows("results/cpu/anchor_sharpness.csv")
    page.say(
        "output's energy was {:.1e}, of softmax attention {:.2f}",
        shares.one("share_median", options="init=paper"), shares.one("share_median", attention="full"),
    )  # fmt: skip
    recall = page.rows("results/cpu/recall").where(metric="top1", attention="anchor", m=16)
    late, sharp = (
        recall.where(options=option(items="56", steps="1500", init=init)).all() for init in ("paper", "sharp")
    )
    page.say(
        "published start reached {:.3f} on recall against {:.3f} of the sharp one",
        sum(late) / len(late), sum(sharp) / len(sharp),
    )  # fmt: skip

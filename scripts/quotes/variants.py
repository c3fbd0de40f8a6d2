"""docs/variants.md: what causal, grouped and cross attention take on two CPU cores."""

from __future__ import annotations

from quotes import Page, Rows, option

PAGE = "docs/variants.md"
VARIANTS = ("full", "flash", "window", "linear", "performer", "anchor")


def quote(page: Page) -> None:
    rows = page.rows("results/cpu/problems/causal").where(n="4096", status="ok")
    plain, causal = rows.where(options=""), rows.where(options=option(causal="true"))
    page.table(
        "| variant | without | causal | causal over without |",
        [[f"`{name}`", plain.cell(attention=name), causal.cell(attention=name),
          f"×{_ms(causal, name) / _ms(plain, name):.2f}"] for name in VARIANTS],
    )  # fmt: skip
    grouped = page.rows("results/cpu/problems/grouped").where(n="4096", metric="latency")
    every, single = grouped.where(options=""), grouped.where(options=option(kv_heads="1"))
    page.say(
        "one head of keys, `flash` takes {:.2f} times what it takes with 8, `full` {:.2f} times",
        *(_ms(single, name) / _ms(every, name) for name in ("flash", "full")),
    )  # fmt: skip
    long = page.rows("results/cpu/problems/cross").where(n="1024", options=option(kv_tokens="16384"), metric="latency")
    exact = min(long.all(attention=name)[0] for name in ("full", "flash"))
    page.say(
        "the fastest exact one takes {:.0f} ms, `linformer` with m = 64 {:.1f} ms", exact,
        long.one(attention="linformer", m="64"),
    )  # fmt: skip


def _ms(rows: Rows, name: str) -> float:
    return rows.one(metric="latency", attention=name)

"""docs/scaling.md: bytes that ranks sent, and the projection."""

from __future__ import annotations

from quotes import Page, Rows

PAGE = "docs/scaling.md"
COUNTS = (4096, 65536, 1048576)
PROJECTED = ((1, 8), (1, 64), (1, 1024), (10, 64), (10, 1024), (100, 64), (100, 1024))  # million tokens, GPUs


def quote(page: Page) -> None:
    sent = page.rows("results/cpu/parallel_bytes.csv")
    page.table(
        "| variant | phase | n = 2¹² | n = 2¹⁶ | n = 2²⁰ | TCP at 2¹², 2¹⁶, 2²⁰ |",
        [_sent(sent, "anchor", "forward", "`anchor`"), _sent(sent, "anchor", "train", "`anchor`"),
         _sent(sent, "flash (ring)", "forward", "ring (`full`, `flash`)"),
         _sent(sent, "flash (ring)", "train", "ring")],
    )  # fmt: skip
    wire = [
        [sent.one("wire_bytes_per_rank", variant=name, phase="forward", n=n) for n in COUNTS[::2]]
        for name in ("anchor", "flash (ring)")
    ]
    page.say(
        "does not grow with n: {:.0f} bytes a call at n = 2¹² and at 2²⁰,", wire[0][0] if len(set(wire[0])) == 1 else -1
    )
    page.say("exact attention sends {:.1f} and {:.0f} MB", *(one / 1e6 for one in wire[1]))
    projected = page.rows("docs/scaling/projection.csv")
    page.table(
        "| tokens | GPUs | anchor, ms | of it exchange | sends | ring, ms | sends |",
        [_projected(projected, millions, ranks) for millions, ranks in PROJECTED],
    )
    kept = [_efficiency(projected, "anchor", millions, ranks) for millions, ranks in ((1, 8), (100, 256), (100, 1024))]
    page.say("({} % at 1 M on 8, {} % at 100 M on 256);", *kept[:2])
    page.say("100 M on 1024 still gain, at {} %.", kept[2])
    held = projected.one("held_bytes", variant="anchor", n=100 << 20, ranks=8)
    page.say("but for 100 M tokens on 8 GPUs ({:.0f} GB).", held / 1e9)


def _sent(rows: Rows, variant: str, phase: str, name: str) -> list[str]:
    own = rows.where(variant=variant, phase=phase)
    wire, tcp = (
        [_spaced(own.one(column, n=n)) for n in COUNTS] for column in ("wire_bytes_per_rank", "tcp_bytes_per_rank")
    )
    return [name, phase, *wire, f"{tcp[0]} each" if len(set(tcp)) == 1 else ", ".join(tcp)]


def _projected(rows: Rows, millions: int, ranks: int) -> list[str]:
    anchor, ring = (rows.only(variant=name, n=millions << 20, ranks=ranks) for name in ("anchor", "flash"))
    whole = float(anchor["time_s"])
    waits = 1 - float(anchor["compute_s"]) / whole
    least = float(ring["bytes_sent"]) / 2**30
    return [
        f"{millions} M", str(ranks), f"{1e3 * whole:.{1 if whole >= 0.01 else 2}f}", f"{100 * waits:.0f} %",
        f"{float(anchor['bytes_sent']) / 2**20:.1f} MiB", _spaced(float(f"{1e3 * float(ring['time_s']):.4g}")),
        f"{least:.1f} GiB" if least < 10 else f"{least:.0f} GiB",
    ]  # fmt: skip


def _efficiency(rows: Rows, variant: str, millions: int, ranks: int) -> str:
    return f"{100 * rows.one('efficiency', variant=variant, n=millions << 20, ranks=ranks):.0f}"


def _spaced(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")

"""docs/operators.md: how far attentions are told apart by the two equations."""

from __future__ import annotations

from quotes import Page, Rows

PAGE = "docs/operators.md"
COUNTED = "importance=true init=orthogonal logits=cosine self=excluded"
MEMBERS = {
    "`full`": ("full", ""), "`anchor init=sharp`": ("anchor", " init=sharp"),
    "`anchor self=excluded`": ("anchor", " self=excluded"),
    "`anchor self=excluded local=3`": ("anchor", " local=3 self=excluded"),
    "`anchor init=orthogonal logits=cosine`": ("anchor", " init=orthogonal logits=cosine"),
    "the same with `self=excluded`": ("anchor", " init=orthogonal logits=cosine self=excluded"),
    "and with `importance=true`": ("anchor", f" {COUNTED}"),
    "`transolver mixing=false`": ("transolver", " mixing=false"), "`transolver`": ("transolver", ""),
    "`flare`": ("flare", ""), "`nystrom`": ("nystrom", ""), "`performer`": ("performer", ""),
    "`linear`": ("linear", ""), "`window`": ("window", " reach=16"), "`linformer`": ("linformer", ""),
    "`agent`": ("agent", ""), "`none`, the floor": ("none", ""),
}  # fmt: skip


LARGE = (16384, 65536, 1048576)  # points
BACKENDS = (
    ("flash", "torch", ""), ("anchor", "reference", ""), ("anchor", "chunked", ""), ("anchor", "reference", COUNTED),
    ("anchor", "chunked", COUNTED), ("transolver", "reference", ""), ("flare", "reference", ""),
    ("linear", "reference", ""),
)  # fmt: skip


def quote(page: Page) -> None:
    points = page.rows("results/cpu/points")
    page.table(
        "| forward, ms (peak MiB) | 16k points | 64k | 1M |",
        [[f"`{attention}:{backend}{'` with importance' if options else '`'}",
          *(_taken(points.where(options=options.replace(" ", ";")), attention, backend, n) for n in LARGE)]
         for attention, backend, options in BACKENDS],
    )  # fmt: skip
    spread = page.rows("results/cpu/points_parallel")
    page.say(
        "a million points take {:.0f} ms of `anchor`, a scaling efficiency of {:.2f}, for {:,.0f} bytes sent a call",
        spread.one(metric="latency"), spread.one(metric="scaling_efficiency"), 2**20 * spread.one(metric="bytes_sent"),
    )  # fmt: skip
    short, long = (page.rows(f"results/cpu/family{name}/family.csv") for name in ("", "_long"))
    page.table(
        "| | Darcy | Darcy, 3000 steps | Darcy, 1024 points | Poisson |",
        [[name, error(short, "darcy", "16", *member), error(long, "darcy", "16", *member),
          error(short, "darcy-1024", "32", *member), error(short, "poisson", "16", *member)]
         for name, member in MEMBERS.items()],
    )  # fmt: skip


def error(rows: Rows, equation: str, m: str, attention: str, options: str) -> str:
    """The mean over the seeds, to three digits; empty where it was not trained."""
    found = rows.where(problem=equation, m=(m, ""), attention=attention, options=options, metric="relative_l2").rows
    return f"{float(found[0]['mean']):.3f}" if found else ""


def _taken(rows: Rows, attention: str, backend: str, n: int) -> str:
    """Latency and peak memory; empty where it was not asked for."""
    own = rows.where(attention=attention, backend=backend, n=str(n))
    if not own.rows:
        return ""
    peak = own.where(metric="peak_memory").rows
    return own.cell() + (f" ({float(peak[0]['value']):,.0f})" if peak and peak[0]["status"] == "ok" else "")

"""docs/timing.md: how far our clocks agree with others', and what a neighbour does."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from quotes import ROOT, Page

PAGE = "docs/timing.md"


def quote(page: Page) -> None:
    _beside_loops(page)
    page.between(
        "<!-- allocator: begin -->", "<!-- allocator: end -->",
        "\n".join(_script("allocator_spread").table(page.rows("results/cpu/allocator_spread.csv"))),
    )  # fmt: skip
    script = _script("timing_table")
    page.between(script.BEGIN, script.END, script.table(list(page.rows("results/h200/timing_agreement.csv"))))
    rows = page.rows("results/cpu/timing_agreement.csv")
    page.table(
        "| case | harness, ms | Timer, ms | difference | 95 % interval | rounds |",
        [[f"{row['attention']}:{row['backend']} n={row['n']}", f"{float(row['harness_ms']):.2f}",
          f"{float(row['timer_ms']):.2f}", f"{100 * float(row['difference']):+.1f} %",
          f"{100 * float(row['low']):+.1f} to {100 * float(row['high']):+.1f}", row["rounds"]] for row in rows],
    )  # fmt: skip
    plain = page.rows("results/cpu/timing_agreement_default_malloc.csv").only(attention="full", n=4096)
    page.say(
        "then took {:.0f} ms instead of {:.0f} here, and the comparison was lost in noise: {} %, {} to {} (without",
        float(plain["harness_ms"]), rows.one("harness_ms", attention="full", n=4096),
        *(f"{100 * float(plain[name]):+.1f}" for name in ("difference", "low", "high")),
    )  # fmt: skip


def _beside_loops(page: Page) -> None:
    script, folder = _script("beside_loops"), ROOT / "results" / "cpu" / "beside_loops"
    parts = {
        "sweep": (script.Line, script.sweep_table), "crossover": (script.Answer, script.crossover_table),
        "threads": (script.Way, script.threads_table),
    }  # fmt: skip
    for name, (kind, table) in parts.items():
        text = "\n".join(table(script.stored(folder / f"{name}.csv", kind)))
        page.between(f"<!-- beside loops, {name}: begin -->", f"<!-- beside loops, {name}: end -->", text)


def _script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module

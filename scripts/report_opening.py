"""How large a report of many rows is, and how long a browser takes to open it: until every chart is drawn.

    python scripts/report_opening.py --rows 100000 --repeat 5 --json opening.json

The rows are made up (nothing is measured): five variants over 40 n, 12 m, three phases and two dtypes, every row with
figures of its own, so that they compress as badly as real ones. Needs the extra `report`, playwright and a Chromium.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy
import pandas

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from harness import report  # noqa: E402
from harness.figures import Run  # noqa: E402
from harness.store.record import COLUMNS, PHASES  # noqa: E402
from harness.store.runs import KINDS  # noqa: E402
from harness.store.selection import labelled  # noqa: E402

EXACT, NARROW = ("full", "flash"), ("linformer", "nystrom", "anchor")
METRICS = {
    "latency": "ms", "first_call": "ms", "throughput": "tokens/s", "flops": "FLOP", "flops_rate": "TFLOP/s",
    "peak_memory": "MiB", "bytes_moved": "MiB", "roofline_fraction": "1", "kernels": "1", "numeric_error": "1",
    "approximation_error": "1",
}  # fmt: skip
SAMPLED = ("latency", "throughput", "flops_rate", "roofline_fraction")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
READY = "html[data-ready=true], html[data-ready=failed]"


def made_up(count: int) -> Run:
    """A run of `count` rows."""
    ms = [None, *(4 * (at + 1) for at in range(12))]
    sizes = [128 * (at + 1) for at in range(40)]
    every = itertools.product(sizes, PHASES, ("float32", "bfloat16"), (*EXACT, *NARROW), ms)
    cases = [case for case in every if (case[3] in EXACT) == (case[4] is None)]
    cases = list(itertools.islice(itertools.cycle(cases), -(-count // len(METRICS))))
    random = numpy.random.default_rng(0)
    names = list(METRICS) * len(cases)
    each = [case for case in cases for _ in METRICS]
    n = numpy.array([case[0] for case in each], dtype=float)
    m = numpy.array([case[4] or case[0] for case in each], dtype=float)
    value = n * m * 1e-4 * numpy.exp(random.normal(0, 0.1, len(each)))
    sampled = numpy.isin(names, SAMPLED)
    spread = numpy.where(sampled, random.uniform(0.001, 0.05, len(each)), numpy.nan)
    frame = pandas.DataFrame(
        {
            "run_id": "made-up", "case_id": [f"{at // len(METRICS):012x}" for at in range(len(each))],
            "time_utc": "2026-01-01T00:00:00Z", "machine": "MADE-UP-2c-000000", "commit": "",
            "attention": [case[3] for case in each], "backend": "reference", "scope": "core",
            "phase": [case[1] for case in each], "b": 1 + numpy.arange(len(each)) // (len(METRICS) * 9120), "h": 6,
            "n": n.astype(int), "d": 64, "m": [case[4] for case in each], "dtype": [case[2] for case in each],
            "device": "cpu", "options": "", "seed": 0, "metric": names, "unit": [METRICS[name] for name in names],
            "value": value, "ci_low": value * (1 - spread), "ci_high": value * (1 + spread),
            "p20": value * (1 - 2 * spread), "p80": value * (1 + 2 * spread),
            "samples": [20 if own else 1 for own in sampled], "status": "ok",
            "note": [f"stopped: budget at ±{100 * at:.2f} %" if at == at else "" for at in spread],
        }
    ).iloc[:count]  # fmt: skip
    frame = frame.astype({name: kind.dtype for name, kind in KINDS.items() if kind.dtype in ("Int64", "float64")})
    frame = labelled(frame[list(COLUMNS)])
    ceilings = {"cpu": {"copy_gb_per_s": 20.0, "matmul_tflops": {"float32": 0.1, "bfloat16": 0.2}}}
    return Run(folder=Path("made-up"), frame=frame, environment={"device": "cpu", "ceilings": ceilings}, whole=frame)


def kinds() -> dict[str, str]:
    """What the made-up variants are."""
    return dict.fromkeys(EXACT, "exact") | dict.fromkeys(NARROW, "approximate")


def openings(page: Path, *, repeat: int) -> list[tuple[float, float]]:
    """Milliseconds from navigation to the last chart drawn, and of the page's thread at work; each in a new browser."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise SystemExit(f"no browser: install one of {', '.join(BROWSERS)}")
    times = []
    for _ in range(repeat):
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
            view = browser.new_page(viewport={"width": 1280, "height": 900})
            session = view.context.new_cdp_session(view)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            view.goto(page.resolve().as_uri())
            view.wait_for_selector(READY, state="attached", timeout=300_000)
            if view.locator("html").get_attribute("data-ready") != "true":
                raise SystemExit(view.locator("#trouble").text_content())
            work = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
            drawn = float(view.evaluate("performance.getEntriesByName('drawn')[0].startTime"))
            times.append((drawn, 1e3 * work["TaskDuration"]))
            browser.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=5, help="browsers that open it, one after another")
    parser.add_argument("--out", type=Path, help="keep the report here")
    parser.add_argument("--json", type=Path, help="write what was found here, too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = given.out or Path(folder) / report.NAME
        started = time.perf_counter()
        html = report.build([made_up(given.rows)], kinds=kinds())
        building = time.perf_counter() - started
        report.write(html, out)
        times = openings(out, repeat=given.repeat)
    found: dict[str, Any] = {
        "rows": given.rows, "bytes": len(html.encode()), "building_s": round(building, 1),
        "opening_ms": [round(wall) for wall, _ in times], "thread_ms": [round(work) for _, work in times],
        "median_opening_ms": round(statistics.median(wall for wall, _ in times)),
    }  # fmt: skip
    text = json.dumps(found)
    if given.json:
        given.json.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

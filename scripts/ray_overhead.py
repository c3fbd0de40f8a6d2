"""What the Ray engine costs over the local one: the same 40 cases by both in turns, wall time after start-up.

    python scripts/ray_overhead.py --out results/cpu/ray_overhead.csv --pairs 4

Start-up is not part of it: the clock runs from the first case's end to the last one's, as the rows' own progress tells,
so both engines have started their worker and measured their ceilings. A cluster of one node is started once and kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = 40
SWEEP = ["--attention", "full,flash,anchor,linformer", "--n", "64,128,192,256,320,384,448,512,640,768", "--m", "16",
         "--heads", "2", "--head-dim", "32", "--metrics", "latency,flops,peak_memory", "--budget", "0.2"]  # fmt: skip
COLUMNS = ("pair", "engine", "cases", "seconds", "measuring_s")


def main() -> None:
    """Run the pairs, print the ratio, write the CSV."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/cpu/ray_overhead.csv"))
    parser.add_argument("--pairs", type=int, default=4)
    options = parser.parse_args()
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))  # this cluster's, and nobody else's
    ray = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    head = subprocess.Popen(
        [*ray, "start", "--head", "--block", f"--port={port}", "--include-dashboard=false", "--disable-usage-stats"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        while subprocess.run([*ray, "status", "--address", f"127.0.0.1:{port}"], capture_output=True).returncode:
            if head.poll() is not None:
                sys.exit(f"ray start ended with {head.returncode}")
            time.sleep(1)
        engines = {"local": [], "ray": ["--engine", "ray", "--address", f"127.0.0.1:{port}"]}
        rows = []
        for pair in range(options.pairs):
            for engine in ("local", "ray") if pair % 2 == 0 else ("ray", "local"):
                seconds, measuring_s = run(engines[engine])
                rows.append((pair, engine, CASES, seconds, measuring_s))
                print(f"pair {pair}, {engine}: {seconds:.2f} s", file=sys.stderr)
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])
    times = {engine: [row[3] for row in rows if row[1] == engine] for engine in engines}
    ratios = [other / local for local, other in zip(times["local"], times["ray"], strict=True)]
    print(f"ray over local: {statistics.median(ratios):.3f} (median of {len(ratios)} pairs, "
          f"{min(ratios):.3f} to {max(ratios):.3f})")  # fmt: skip


def run(engine: list[str]) -> tuple[float, float]:
    """Seconds from the end of the first case to the end of the last, and how many of the session were measuring."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "stdout").open("w+", encoding="utf-8") as out:
        done = subprocess.Popen(
            [sys.executable, "-m", "harness", "run", *SWEEP, *engine, "--json", "--out", str(Path(folder) / "run")],
            stdout=out, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert done.stderr is not None
        told = [(time.monotonic(), line) for line in done.stderr]
        if done.wait():
            sys.exit(f"harness run ended with {done.returncode}: {told[-1][1] if told else ''}")
        out.seek(0)
        document = json.load(out)
    ends = [at for at, line in told if line.startswith("[")]
    if document["statuses"] != {"ok": CASES} or len(ends) != CASES:
        sys.exit(f"not every case was measured: {document['statuses']}")
    return ends[-1] - ends[0], document["measuring_s"]


if __name__ == "__main__":
    main()

"""Where the time of a sweep goes: the share that measures, seconds by stage, and what `harness plan` had predicted.

    python scripts/overhead.py                                  # plans and runs scripts/overhead.toml: 80 cases
    python scripts/overhead.py --run results/cpu/sweep          # of a run that is there: its share and stages

Measuring is what happens inside a metric, the ceilings and the canary. The rest is starting workers, building inputs,
waiting for cases that time out or crash, what a busy machine costs (waiting for quiet, cases taken again), and what
passes between the processes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness.sweep.journal import NO_FIGURES

CONFIG = Path(__file__).with_suffix(".toml")
GOAL, TOLERATED = 0.85, 0.3


def main() -> int:
    """Print the table; 0 where the share, and the prediction if one was made, are as good as they should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--out", type=Path, help="keep the run there")
    parser.add_argument("--run", type=Path, help="a run folder to read; nothing is measured")
    options = parser.parse_args()
    if options.run:
        lines, well = report(read(options.run), predicted_s=None)
    else:
        folder = options.out or Path(tempfile.mkdtemp(prefix="overhead-")) / "run"
        predicted = json.loads(harness("plan", "--config", options.config, "--json"))["seconds"]
        harness("run", "--config", options.config, "--out", folder, "--quiet")
        lines, well = report(read(folder), predicted_s=predicted)
    print("\n".join(lines))
    return 0 if well else 1


def report(document: dict[str, Any], *, predicted_s: float | None) -> tuple[list[str], bool]:
    """The lines for a run's environment.json, and whether they are as good as they should be."""
    wall, measuring = document["wall_s"], document["measuring_s"]
    seconds: dict[str, float] = {}
    for session in document["sessions"]:
        for name, spent in session["seconds"].items():
            seconds[name] = seconds.get(name, 0.0) + spent
    seconds["between"] = wall - sum(seconds.values())
    share = measuring / wall
    lines = [f"{wall:.1f} s, {100 * share:.1f} % of it measuring (goal: {100 * GOAL:.0f} %)", ""]
    for name, spent in sorted(seconds.items(), key=lambda entry: -entry[1]):
        kind = "" if name not in (*NO_FIGURES, "between") else "  no measuring"
        lines.append(f"{name:<20} {spent:8.2f} s {100 * spent / wall:5.1f} %{kind}")
    well = share >= GOAL
    if predicted_s is not None:
        off = predicted_s / wall - 1
        well = well and abs(off) <= TOLERATED
        lines += ["", f"harness plan had said {predicted_s:.1f} s: {100 * off:+.0f} % (tolerated: ±{TOLERATED:.0%})"]
    return lines, well


def read(folder: Path) -> dict[str, Any]:
    """A run's environment.json."""
    return json.loads((folder / "environment.json").read_text(encoding="utf-8"))


def harness(*arguments: str | Path) -> str:
    """Run the command line; what it wrote to stdout. Ends the script where that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", *map(str, arguments)], text=True, stdout=subprocess.PIPE, check=False
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"harness {' '.join(map(str, arguments))} ended with {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())

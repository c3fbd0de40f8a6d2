"""The gate's error rates by every rule that was tried, quiet and beside a busy loop, in some ten minutes.

    python scripts/gate_rates.py --out results/cpu/gate               # both, on a quiet machine
    python scripts/gate_rates.py --out results/cpu/gate --only busy   # goes on where a recording was stopped

The whole of `scripts/gate_selftest` takes four times as long: it records four amounts of extra work and tries the
mutants. This records unchanged code and 10 % of work done twice, which is what the goal is stated for.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from harness.check import pool, selftest
from harness.check.pairs import SECONDS, THREADS

EXTRAS = (0, 10)


class Said:
    """Progress as plain lines on stderr, one every ten seconds."""

    def __init__(self) -> None:
        self.told = 0.0

    def step(self, done: int, total: int, what: str) -> None:
        """How far it is."""
        if time.monotonic() - self.told > 10 or done >= total:
            self.told = time.monotonic()
            self.say(f"[{done}/{total}] {what}")

    def say(self, text: str) -> None:
        """What begins now."""
        print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Record and judge each pool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folders quiet/ and busy/ are written in it")
    parser.add_argument("--only", choices=("quiet", "busy"), help="one of the two")
    parser.add_argument("--processes", type=int, default=80, help="a pool, a multiple of 4 from 80 on")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of samples a case in each process")
    parser.add_argument("--trials", type=int, default=400, help="decisions a rate")
    given = parser.parse_args()
    for name in [given.only] if given.only else ["quiet", "busy"]:
        folder = given.out / name
        recorded = folder / pool.POOL
        if recorded.exists() and not recorded.read_text(encoding="utf-8").startswith(",".join(pool.COLUMNS)):
            recorded.unlink()  # of an earlier gate, which kept the wall clock only
        started = time.monotonic()
        selftest.run(
            folder, progress=Said(), processes=given.processes, seconds=given.seconds, threads=THREADS,
            trials=given.trials, busy=name == "busy", device="cpu", extras=EXTRAS, plant=False,
        )  # fmt: skip
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()

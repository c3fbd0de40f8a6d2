"""The command line with a Ray station that needs no torch: python light_ray.py run --engine ray --address HOST:PORT …

Everything is the real thing but the measuring. A case begins by leaving a file in the folder $LIGHT: its name tells the
process group of the node, the process of the actor and the case, and lasts for as long as $LIGHT/pause exists.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import cli
from harness.cases.catalogue import Resolution
from harness.engines import ray as engine
from harness.engines.local import Outcome
from harness.engines.place import Place
from harness.machine.quiet import Moment
from harness.store.record import Case, Reading

FOLDER = Path(os.environ["LIGHT"])
VARIANT = {"bottleneck": "", "options": {}, "backends": {"reference": {}}, "exponents": None}


class Lamp:
    """An engine whose figures are made up."""

    def open(self) -> dict[str, Any]:
        return {
            "device": "cpu", "catalogue": dict.fromkeys(("one", "two"), VARIANT), "environment": {"pid": os.getpid()},
            "machine": f"machine-{os.getpgid(os.getppid())}", "commit": "not this",
        }  # fmt: skip

    def resolve(self, cases: Sequence[Case]) -> list[Resolution]:
        return [Resolution(case=replace(case, backend="reference")) for case in cases]

    def free_bytes(self) -> int:
        return 1

    def ceilings(self, dtypes: Sequence[str]) -> dict[str, Any]:
        return {"copy_gb_per_s": 1.0, "matmul_tflops": dict.fromkeys(dtypes, 1.0)}

    def canary(self) -> float:
        return 1.0

    def moment(self) -> Moment:
        return Moment(seconds=time.monotonic())

    def examine(self, seconds: float) -> str:
        return ""

    def measure(self, case: Case, *, metrics: Sequence[str], settings: Any, timeout_s: float) -> Outcome:
        print("a case prints this, and it reaches nobody")
        (FOLDER / f"{os.getpgid(os.getppid())} {os.getpid()} {case.attention} {case.n}").touch()
        time.sleep(0.15)  # a sweep lasts long enough to be disturbed in its middle
        while (FOLDER / "pause").exists():
            time.sleep(0.02)
        return Outcome(readings=[Reading(metric=name, value=float(case.n)) for name in metrics])


class Light(engine.Station):
    """Pickled by value, since it is of no module that the nodes know."""

    def __init__(self, plugins: Sequence[tuple[str, Mapping[str, bytes]]], device: str) -> None:
        self._paths, self._place = {}, Place(Lamp())


if __name__ == "__main__":
    engine.Station = Light
    sys.exit(cli.main())

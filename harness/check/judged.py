"""A stored run as it is judged, whoever wrote it: its rows by case and metric, raw samples and ceilings. No torch.

run = Judged.of(Path("results/cpu/sweep"))
for case in run.cases: run.figures(case)      # {"latency": 5.27, …}: what is ok, finite and above zero
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from harness.store import runs as store
from harness.store.ceilings import of_row
from harness.store.documents import part
from harness.store.record import Case
from harness.store.selection import Frame

EXACTLY = 1e-9  # relative: what is computed from another figure


@dataclass(frozen=True)
class Judged:
    """A run's rows, and what lies beside them."""

    folder: Path
    frame: Frame
    environment: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Path) -> Judged:
        """Raises StoreError for what is no run."""
        return cls(folder, store.read(folder), store.read_environment(folder))

    @cached_property
    def cases(self) -> list[dict[str, Any]]:
        """The rows of each case by metric, failures included."""
        found: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
        for row in self.frame.itertuples(index=False):
            found[row.machine, row.case_id][row.metric] = row
        return list(found.values())

    @cached_property
    def kept(self) -> Frame:
        """The raw samples, a row each."""
        return store.read_samples(self.folder)

    @cached_property
    def samples(self) -> dict[Any, np.ndarray]:
        """The raw samples by (case_id, metric)."""
        groups = self.kept.groupby(["case_id", "metric"])
        return {key: group["value"].to_numpy(dtype=float) for key, group in groups}

    @property
    def sessions(self) -> list[Mapping[str, Any]]:
        """What environment.json tells of each."""
        return [one for one in self.environment.get("sessions", []) if isinstance(one, dict)]

    def ok(self, metrics: Sequence[str]) -> list[Any]:
        """The rows of these metrics that have a figure."""
        return [row for case in self.cases for name, row in case.items() if name in metrics and row.status == "ok"]

    def figures(self, case: Mapping[str, Any]) -> dict[str, float]:
        """The figures of a case by metric, as far as one can calculate with them."""
        good = {name: row.value for name, row in case.items() if row.status == "ok" and math.isfinite(row.value)}
        return {name: value for name, value in good.items() if value > 0}

    def count(self, row: Any) -> int:
        """How many samples a row says it is of; 0 where it does not say."""
        return 0 if _none(row.samples) else int(row.samples)

    def rates(self, row: Any, *, dtype: str = "") -> tuple[float | None, float | None]:
        """GB/s of a copy and TFLOP/s of a product in a row's session, in its dtype or another; None: not measured."""
        return of_row(self.environment, row, **({"dtype": dtype} if dtype else {}))

    def canaries(self, session: Mapping[str, Any]) -> list[float]:
        """What each canary of a session took, in ms."""
        looks = session.get("canary_ms")
        pairs = [each for each in looks if isinstance(each, list) and len(each) == 2] if isinstance(looks, list) else []
        return [value for value in numbers(each[1] for each in pairs) if value > 0]

    def cache_bytes(self, row: Any) -> float:
        """No less than the last-level cache of a row's device; infinite where none is told, which proves nothing."""
        told = part(part(self.environment, "machines"), row.machine) or part(self.environment, "environment")
        if row.device.startswith("cuda"):
            return sum(numbers([part(told, "gpu").get("l2_bytes")])) or math.inf
        cpu = part(told, "cpu")
        sizes, cores = list(numbers(part(cpu, "caches_bytes").values())), list(numbers([cpu.get("affinity_cores")]))
        return max(sizes) * cores[0] if sizes and cores else math.inf


def case_of(row: Any) -> Case:
    """The case that a row's fields tell."""
    values = {name: getattr(row, name) for name in Case.__dataclass_fields__}
    whole = {name: int(values[name]) for name in ("b", "h", "n", "d", "seed")}
    return Case(**{**values, **whole, "m": None if _none(row.m) else int(row.m)})


def of(row: Any) -> str:
    """A row's case in words."""
    return str(case_of(row))


def same(found: float, meant: float) -> bool:
    """Whether a figure is what it is computed from, to rounding."""
    return math.isclose(found, meant, rel_tol=EXACTLY)


def numbers(values: Iterable[Any]) -> list[float]:
    """Those that are finite numbers."""
    return [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]


def _none(value: Any) -> bool:
    import pandas

    return value is None or bool(pandas.isna(value))

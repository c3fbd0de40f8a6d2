"""A run that nobody measured: many variants, sizes, phases and dtypes, with failures, written by the store.

write_run(folder)                                  # measurements.csv, samples.csv, environment.json
write_run(folder, variants=("anchor",), sizes=(4096,), phases=("forward",))
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness import stats
from harness.store.record import Case, Reading, Row
from harness.store.runs import Store

EXACT = ("full", "flash", "xformers")
BACKENDS = {"full": "reference", "flash": "torch", "linformer": "reference", "nystrom": "reference", "anchor": "sdpa"}
VARIANTS = ("full", "flash", "xformers", "linformer", "nystrom", "anchor")
SIZES = tuple(1 << k for k in range(8, 17))
WORK = {"forward": 1.0, "backward": 2.0, "train": 3.0}
DECLARED = {
    "full": {"flops_n": 2, "flops_m": 0, "peak_n": 2, "peak_m": 0},
    "flash": {"flops_n": 2, "flops_m": 0, "peak_n": 1, "peak_m": 0},
    **{name: {"flops_n": 1, "flops_m": 1, "peak_n": 1, "peak_m": 1} for name in ("linformer", "nystrom", "anchor")},
}
ENVIRONMENT = {
    "schema": 1,
    "device": "cpu",
    "environment": {"cpu": {"model": "AMD EPYC 7B13 64-Core Processor", "affinity_cores": 2}, "gpu": None},
    "ceilings": {"cpu": {"copy_gb_per_s": 21.4, "matmul_tflops": {"float32": 0.105, "bfloat16": 0.21}}},
    "declared": DECLARED,
}
RATES = {"full": 0.05, "flash": 0.08, "linformer": 0.06, "nystrom": 0.035, "anchor": 0.07}  # TFLOP/s once large


def write_run(
    folder: Path, *, variants: Sequence[str] = VARIANTS, sizes: Sequence[int] = SIZES,
    anchors: Sequence[int] = (16, 64, 256), phases: Sequence[str] = ("forward", "train"),
    dtypes: Sequence[str] = ("float32", "bfloat16"), changes: Sequence[dict] = ({},), machine: str = "EPYC-2c-3f9a1c",
    fail_all: str = "", with_samples: bool = True, note: str = "", environment: dict | None = None,
) -> Path:  # fmt: skip
    """Write a run. changes: fields replaced in copies of every case ({"scope": "layer"}); fail_all: every status."""
    generator = np.random.default_rng(7)
    with Store.open(folder, metrics=("latency",)) as store:
        for name, n, phase, dtype, change in itertools.product(variants, sizes, phases, dtypes, changes):
            for m in (None,) if name in EXACT else anchors:
                case = Case(
                    attention=name, backend=BACKENDS.get(name, "" if name == "xformers" else "reference"),
                    scope="core", phase=phase, b=1, h=6, n=n, d=64, m=m, dtype=dtype, device="cpu",
                )  # fmt: skip
                case = replace(case, **change)
                failure = Reading(metric="latency", status=fail_all, note=note) if fail_all else _failure(case)
                readings, samples = ([failure], {}) if failure else _measure(case, generator, note)
                rows = [
                    Row.of(case, r, run_id="r1", machine=machine, commit="904f979ab01c", time_utc="2025-11-22T10:00Z")
                    for r in readings
                ]  # fmt: skip
                store.append(rows, samples if with_samples else {})
        store.write_json("environment.json", ENVIRONMENT if environment is None else environment)
    return folder


def _failure(case: Case) -> Reading | None:
    if case.attention == "xformers":
        reason = "xformers has no kernel for this device: it needs an NVIDIA GPU and libcudart.so.12"
        return Reading(metric="latency", status="unavailable", note=reason)
    if case.attention == "full" and case.n > (16384 if case.phase == "forward" else 8192):
        return Reading(metric="latency", status="oom", note=f"needs {case.n**2 * 48e-9:.1f} GB, 21.9 GB free")
    if case.attention == "flash" and case.n >= 65536 and case.phase == "train":
        return Reading(metric="latency", status="timeout", note="over 120 s")
    if case.attention == "linformer" and case.n >= 65536 and case.m == 256 and case.phase == "train":
        return Reading(metric="latency", status="oom", note="needs 23.4 GB, 21.9 GB free")
    if case.m is not None and case.m >= case.n:
        return Reading(metric="latency", status="unsupported", note=f"m={case.m} is not below n={case.n}")
    return None


def _measure(case: Case, generator: np.random.Generator, note: str) -> tuple[list[Reading], dict[str, list[float]]]:
    tokens, work = case.b * case.h * case.n, WORK[case.phase]
    small = {"linformer": 8, "nystrom": 12, "anchor": 6}.get(case.attention, 6)
    flops = work * tokens * case.d * (4 * case.n if case.m is None else small * case.m)
    rate = RATES.get(case.attention, 0.04) * (1.6 if case.dtype == "bfloat16" else 1.0) * (0.8 if work > 1 else 1)
    rate *= 1.0 if case.m is None else 0.45 + 0.1 * math.log2(case.m)
    latency = 0.02 * (1 + len(case.attention) % 3) * work + flops / rate / 1e9
    samples = (latency * np.exp(generator.normal(0, 0.05, 24) + generator.exponential(0.03, 24))).tolist()
    s = stats.summarise(samples)
    interval = {"ci_low": s.ci_low, "ci_high": s.ci_high, "p20": s.p20, "p80": s.p80, "samples": 24}
    wide = 4 if case.dtype == "float32" else 2
    moved = (4 if work == 1 else 8) * tokens * case.d * wide
    held = case.n if case.attention == "full" else (3 if case.attention == "nystrom" else 2) * (case.m or 0)
    peak = wide * tokens * (case.d * work + held * (1 if work == 1 else 2))
    rounding = 2e-7 if case.dtype == "float32" else 3e-3
    found = [
        Reading(metric="latency", value=s.median, note=note, **interval),
        Reading(metric="throughput", value=case.b * case.n / s.median * 1e3, samples=24),
        Reading(metric="flops", value=int(flops), samples=1),
        Reading(metric="flops_rate", value=flops / s.median / 1e9, samples=24),
        Reading(metric="peak_memory", value=peak / 2**20, samples=1),
        Reading(metric="bytes_moved", value=moved / 2**20, samples=1),
        Reading(metric="numeric_error", value=rounding * (1 + 0.3 * (case.m or 9) ** 0.25), samples=1),
        Reading(metric="energy", status="unsupported", note="no energy counter: NVML covers NVIDIA GPUs only"),
    ]
    if case.phase != "forward":
        why = "defined for phase forward of scope core"
        found.append(Reading(metric="approximation_error", status="unsupported", note=why))
    elif case.m is None:
        found.append(Reading(metric="approximation_error", value=rounding if case.attention != "full" else 0.0))
    else:
        base = {"linformer": 1.1, "nystrom": 0.6, "anchor": 0.95}.get(case.attention, 0.8)
        error = base * case.m ** -(0.12 if case.attention == "nystrom" else 0.03) * (case.n / 256) ** 0.02
        found.append(Reading(metric="approximation_error", value=error, samples=1))
    return found, {"latency": samples}

"""No call is quicker than its device allows: a latency below that is no record but an error.

remark = survive(subject, latency, moved=bytes, flops=flops, ceilings=ceilings)      # raises WrongResult

Before it is one, the ceiling that the latency undercuts is measured again by the best of many calls: under load a
median comes out too low. The higher figure is kept in `ceilings`, and the remark says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from harness.machine import system
from harness.measuring import calibrate
from harness.measuring.metrics.flops import declared_flops
from harness.measuring.outputs import WrongResult
from harness.measuring.subject import Subject
from harness.store.ceilings import ABOVE_COPY, NARROW, TOLERATED
from harness.store.record import Reading

ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The time that no call can undercut, which ceiling it comes from, and in words."""

    milliseconds: float
    ceiling: str
    why: str

    def holds(self, milliseconds: float) -> bool:
        """Whether a latency is possible."""
        return self.milliseconds <= TOLERATED * milliseconds


def floor(
    moved: int, flops: int, *, copy_gb_per_s: float, tflops: float, cache_bytes: int | None, device: str
) -> Floor:  # fmt: skip
    """What a call needs at least that moves `moved` bytes and does `flops`.

    What the call before has left in the cache need not be moved again, and what is written may stay there: of the
    bytes only those beyond the cache's size are claimed, and none where its size is not known. A problem that fits in
    the cache is bound by its FLOPs alone.
    """
    beyond = 0 if cache_bytes is None else max(0, moved - cache_bytes)
    rate = copy_gb_per_s * ABOVE_COPY[device]
    by_bytes, by_flops = beyond / rate / 1e6, flops / tflops / 1e9
    if by_bytes > by_flops:
        why = f"{beyond / 2**20:.4g} MiB beyond the cache at {rate:.4g} GB/s"
        return Floor(milliseconds=by_bytes, ceiling="copy", why=why)
    return Floor(milliseconds=by_flops, ceiling="product", why=f"{flops:.4g} FLOP at {tflops:.4g} TFLOP/s")


def survive(subject: Subject, latency: Reading, *, moved: int, flops: int, ceilings: dict[str, Any]) -> str:
    """What to remark where a ceiling turned out to be too low, else nothing. Raises WrongResult below the floor.

    flops: the definition's; a backend that declares fewer for itself is held to those.
    """
    device, dtype, taken = str(subject.device), subject.case.dtype, latency.value or 0.0
    needed = min(flops, declared_flops(subject, executed=True) or flops)

    def lowest(copy: float, product: float) -> Floor:
        return floor(
            moved, needed, copy_gb_per_s=copy, tflops=product, cache_bytes=_cache_bytes(device),
            device=subject.device.type,
        )  # fmt: skip

    before = found = rates(ceilings, dtype)
    for _ in range(ATTEMPTS):
        least = lowest(*found)
        if least.holds(taken):
            break
        if least.ceiling == "copy":
            found = max(found[0], calibrate.highest_copy(device)), found[1]
        else:
            found = found[0], max(found[1], calibrate.highest_product(device, dtype))
    _keep(ceilings, dtype, found)
    least = lowest(*found)
    if least.holds(taken):
        return "" if found == before else _raised(before, found)
    if dtype == "float32" and subject.device.type == "cuda":
        through = calibrate.highest_product(device, dtype, tensor_float=True)
        if lowest(found[0], through).holds(taken):
            return "; quicker than an ordinary product of float32, not than one through TF32"
    if dtype in NARROW and subject.device.type == "cpu":  # what must be wide is, and on some CPUs that is quicker
        wide = max(rates(ceilings, "float32")[1], calibrate.highest_product(device, "float32"))
        _keep(ceilings, "float32", (found[0], wide))  # harness runs validate holds the row against it
        if lowest(found[0], wide).holds(taken):
            return f"; quicker than a product of {dtype}, not than one of float32"
    raise WrongResult(
        f"latency {taken:.4g} ms is less than this device needs: {least.milliseconds:.4g} ms for {least.why}; the call "
        "does not do the work"
    )


def rates(ceilings: dict[str, Any], dtype: str) -> tuple[float, float]:
    """GB/s of a copy and TFLOP/s of a product; 0 where it was not measured."""
    return ceilings.get("copy_gb_per_s") or 0.0, ceilings.get("matmul_tflops", {}).get(dtype) or 0.0


def _keep(ceilings: dict[str, Any], dtype: str, found: tuple[float, float]) -> None:
    ceilings["copy_gb_per_s"] = found[0]
    ceilings["matmul_tflops"] = ceilings["matmul_tflops"] | {dtype: found[1]}


def _raised(before: tuple[float, float], after: tuple[float, float]) -> str:
    return (
        f"; the ceilings were too low and were measured again: copy {before[0]:.4g} → {after[0]:.4g} GB/s, "
        f"product {before[1]:.4g} → {after[1]:.4g} TFLOP/s"
    )


@cache
def _cache_bytes(device: str) -> int | None:
    """Bytes of the last-level cache: of a GPU its L2; of a CPU all that this process' cores stand on."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).L2_cache_size
    return system.last_level_bytes(Path("/"), system.affinity())
